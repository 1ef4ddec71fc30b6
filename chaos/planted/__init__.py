"""Bugs that the checker must find: each module here stands in for a few lines of `src`, in the processes of a storm
that is run with it and nowhere else. `src` has no switch for any of them.

    python -m chaos kills --short --planted commit_before_result
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
BUGS = tuple(sorted(path.stem for path in FOLDER.glob("[a-z]*.py")))


def entry(bug: str) -> Sequence[str]:
    """Python's arguments for a `forebay` with this bug; for the real one if it is ""."""
    return [str(FOLDER / "__main__.py"), bug] if bug else ["-m", "forebay"]
