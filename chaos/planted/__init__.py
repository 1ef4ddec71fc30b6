"""Bugs that the checker must find: each module here stands in for a few lines of `src`, in the processes of a storm
that is run with it and nowhere else. `src` has no switch for any of them.

    python -m chaos kills --short --planted commit_before_result
    python -m chaos --short --planted all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent

FOUND_BY: Mapping[str, str] = {
    "ack_before_delivery": "broker",
    "attempts_in_memory": "kills",
    "auto_commit": "kills",
    "commit_before_result": "kills",
    "last_writer_wins": "kills",
    "offset_latest": "long_poll",
    "position_outside": "kills",
    "shifted_batch": "kills",
    "unknown_as_refusal": "broker",
}
"""Which storm must find which bug."""


def entry(bug: str) -> Sequence[str]:
    """Python's arguments for a `forebay` with this bug; for the real one if it is ""."""
    return [str(FOLDER / "__main__.py"), bug] if bug else ["-m", "forebay"]
