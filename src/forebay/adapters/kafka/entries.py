"""The values that a consumer's hand is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import confluent_kafka
from msgspec import Struct, field

from forebay.adapters.kafka.records import GivenHeaders
from forebay.adapters.kafka.tracker import Mark, Tracker
from forebay.core.errors import ForebayError, InvalidRequest
from forebay.core.message import Message

Place = tuple[str, int]
"""Topic and partition."""


class Entry(Struct, eq=False, kw_only=True):
    """One record. `headers` are None where they cannot be read. `message` is None where nobody can read it, `refusal`
    says why. `known` is what the record itself says of attempts elsewhere. `receipt` is 0 while nobody has it; `busy`
    once its outcome is on its way: begun, or about to be published somewhere else, so that a revocation waits for
    it."""

    place: Place
    offset: int
    record: confluent_kafka.Message
    headers: GivenHeaders | None = None
    message: Message | None = None
    refusal: InvalidRequest | None = None
    known: Mark = Mark()
    receipt: int = 0
    busy: bool = False

    @property
    def readable(self) -> Message:
        """Its message; there is one in whatever is handed out."""
        assert self.message is not None
        return self.message


class Request(Struct, eq=False, kw_only=True):
    """Commit what there is, with an attempt of each of these begun; of none: only commit.

    `answer` is called once, from any thread, unless the request was withdrawn. `deadline` is monotonic. `before`: the
    marks that a commit under way has begun, as they were.
    """

    receipts: Sequence[int]
    answer: Callable[[ForebayError | None], None]
    deadline: float
    withdrawn: bool = False
    settled: bool = False
    before: list[tuple[Entry, Mark | None]] = field(default_factory=list)

    def settle(self, error: ForebayError | None) -> None:
        self.settled = True
        if not self.withdrawn:
            self.answer(error)


class Part(Struct, eq=False):
    """A partition. `stash`: read, but more than the metadata has room for. `changes` counts moves of the tracker, of
    which `committed` are in the group's commit. `leaving`: it is about to be another's, and takes nothing in."""

    tracker: Tracker | None  # None until the first record, where nothing was ever committed
    stash: deque[Entry] = field(default_factory=deque)
    stashed_at: int = 0
    changes: int = 0
    committed: int = 0
    leaving: bool = False

    @property
    def known(self) -> Tracker:
        """Its tracker; there must be one, as there is once anything was read."""
        assert self.tracker is not None, "nothing was read of it"
        return self.tracker
