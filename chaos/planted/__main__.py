"""`python chaos/planted/__main__.py BUG ARGUMENTS...` is `forebay ARGUMENTS...` with one bug, from any folder."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> None:
    bug, *arguments = sys.argv[1:]
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder, which Python puts there
    importlib.import_module(f"chaos.planted.{bug}").plant()
    sys.argv = ["forebay", *arguments]
    from forebay.cli import main as forebay

    forebay()


if __name__ == "__main__":
    main()
