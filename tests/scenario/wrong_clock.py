"""`forebay ARGUMENTS` by a wall clock that is wrong, at each moment by as many seconds as the file says.

python wrong_clock.py FILE ARGUMENTS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

offset_file = Path(sys.argv.pop(1))
right = time.time


def wrong() -> float:
    return right() + float(offset_file.read_text())


if __name__ == "__main__":
    time.time = wrong
    from forebay.cli.app import main  # only now: modules keep the clock that they find

    main()
