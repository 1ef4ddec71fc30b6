"""The log that decides: every request and every event, in order, readable from any position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from msgspec import Struct

from forebay.core.fact import Event, Fact
from forebay.core.message import Message

START = ""
"""The position before the first fact of a source."""


class LogBatch(Struct, frozen=True, kw_only=True):
    """What stands in `source` after position `start` and up to `end`. Positions are opaque: compare for equality only.

    `malformed` counts records that were skipped because nobody can read them; their reasons are logged by the adapter.
    """

    source: str
    start: str
    end: str
    facts: tuple[Fact, ...]
    malformed: int = 0


class EventLog(ABC):
    """Facts about one job, or one batch, keep their order within events; facts of different jobs have none. Those of a
    job are read with the time at which the log took them."""

    @abstractmethod
    async def publish(self, events: Sequence[Event]) -> None:
        """Append. With any final event, a deletion, or any of a batch or a delivery, among them it is durable when this
        returns, in the sense of the queue's durability class; else it survives the death of any process.

        Raises Unavailable when it is not known that all were written: repeat it with the same events, which is harmless
        (`core.job.apply`). Raises PayloadTooLarge for an event that the log will never take; others may be written.
        """

    @abstractmethod
    async def now(self) -> float:
        """The log's time, in seconds since the epoch: what it would note of a fact that it takes now (`logged_at`), to
        within some milliseconds, and rather less than more. No setting of this machine's clock moves it; after a
        restart an embedded log may only begin later. Raises Unavailable."""

    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """The independent parts of the log that this reader is to follow now; of several readers of a group each part
        has one. It may change at any time (`read` returns early then), and be empty for a while."""

    @abstractmethod
    async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
        """What stands after these positions (by source), as soon as there is anything: at most `limit` facts, one batch
        for each source that has some. [] after `wait_s`, or when `sources()` has changed.

        Where requests and events share a source, a request is read before any event about it. Raises Unavailable.
        """

    @abstractmethod
    async def at(self, places: Sequence[str]) -> list[Message | None]:
        """The messages that stand at these places (`JobRequest.place`), of each None where there is none any more or
        nobody can read it. A place is the same whoever reads the log, and for ever. Raises Unavailable."""

    @abstractmethod
    async def ends(self) -> Mapping[str, str]:
        """The position after the newest record of every source of the whole log, whoever follows it. Raises
        Unavailable."""

    @abstractmethod
    async def behind(self, after: Mapping[str, str]) -> Mapping[str, int]:
        """How many records stand after these positions, for every source of the whole log; a source that is not named
        counts from its start. So of two positions of a source the later one has fewer. Raises Unavailable."""
