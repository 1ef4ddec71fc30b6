"""The log that decides: every request and every event, in order, readable from any position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from msgspec import Struct

from forebay.core.event import JobEvent, JobRequest

START = ""
"""The position before the first fact of a source."""


class LogBatch(Struct, frozen=True, kw_only=True):
    """What stands in `source` after position `start` and up to `end`. Positions are opaque: compare for equality only.

    `malformed` counts records that were skipped because nobody can read them; their reasons are logged by the adapter.
    """

    source: str
    start: str
    end: str
    facts: tuple[JobRequest | JobEvent, ...]
    malformed: int = 0


class EventLog(ABC):
    """Facts about one job keep their order; facts of different jobs have none."""

    @abstractmethod
    async def publish(self, events: Sequence[JobEvent]) -> None:
        """Append. With any final event among them it is durable, in the sense of the queue's durability class, when
        this returns; else it survives the death of any process. All or none. Raises Unavailable."""

    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """The independent parts of the log, each read by one projector at a time."""

    @abstractmethod
    async def read(self, source: str, after: str, limit: int, wait_s: float) -> LogBatch:
        """Up to `limit` facts after a position, as soon as there is one; an empty batch with `end == after` after
        `wait_s`. A request is in the log before any event about it that a worker could publish."""
