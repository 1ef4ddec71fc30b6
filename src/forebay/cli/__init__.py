"""The command line: `forebay up`, `run`, `submit`, `jobs`, `models`, `doctor`.

The modules here import typer and the standard library only; everything else is imported inside the command that needs
it, since `forebay --help` must answer before a person notices (a test watches over it).
"""

from forebay.cli.app import main

__all__ = ["main"]
