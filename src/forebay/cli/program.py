"""How this program was called, so that a command that it prints runs as printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "forebay"


def program(arguments: Sequence[str] | None = None) -> str:
    """`forebay` where a shell finds it by that name, else the path by which it was run, such as `.venv/bin/forebay`.

    `arguments` are those of the process. Whoever calls us from a program of his own is told the plain name.
    """
    called = Path((sys.argv if arguments is None else arguments)[0])
    if called.name == "__main__.py" and called.parent.name == NAME:
        return f"{shlex.quote(_near(sys.executable))} -m {NAME}"
    if called.name != NAME or _is_same(shutil.which(NAME), called):
        return NAME
    return shlex.quote(_near(str(called)))


def _near(path: str) -> str:
    """Relative to here where it lies below, and never a bare name, which a shell would look for elsewhere."""
    absolute = os.path.abspath(path)  # without following links: a virtual environment's python is one
    here = os.getcwd()
    if os.path.commonpath([absolute, here]) != here:
        return absolute
    relative = os.path.relpath(absolute, here)
    return relative if os.sep in relative else os.path.join(".", relative)


def _is_same(found: str | None, called: Path) -> bool:
    return found is not None and called.exists() and os.path.samefile(found, called)
