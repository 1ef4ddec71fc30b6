"""Bugs that the checker must find: each module here stands in for a few lines of `src`, in the processes of a storm
that is run with it and nowhere else. `src` has no switch for any of them.

    python -m chaos kills --short --planted commit_before_result
    python -m chaos --short --planted all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).parent


class Finder(Struct, frozen=True):
    """The storm that must find a bug, and the promises that it breaks. Any of these finds it, and nothing else does: a
    storm that goes wrong for another reason proves nothing. `strike`: whom the storm is to hit, where the bug shows in
    one kind of process only."""

    storm: str
    promises: frozenset[str]
    strike: str = ""


FOUND_BY: Mapping[str, Finder] = {
    "ack_before_delivery": Finder("broker", frozenset({"false_202"})),
    "attempts_in_memory": Finder("kills", frozenset({"repeated_attempts"}), strike="worker"),
    "auto_commit": Finder("kills", frozenset({"lost"}), strike="worker"),
    "cancel_without_event": Finder("cancel", frozenset({"uncanceled"})),
    "commit_before_result": Finder("kills", frozenset({"lost"}), strike="worker"),
    "keys_in_memory": Finder("copies", frozenset({"doubled"})),
    "last_writer_wins": Finder("kills", frozenset({"changed", "contradicted"})),
    "offset_latest": Finder("long_poll", frozenset({"lost"})),
    "position_outside": Finder("kills", frozenset({"lost"}), strike="projector"),
    "shifted_batch": Finder("kills", frozenset({"swapped", "wrong_answers"})),
    "unknown_as_refusal": Finder("broker", frozenset({"false_refusals"})),
}


def entry(bug: str) -> Sequence[str]:
    """Python's arguments for a `forebay` with this bug; for the real one if it is ""."""
    return [str(FOLDER / "__main__.py"), bug] if bug else ["-m", "forebay"]
