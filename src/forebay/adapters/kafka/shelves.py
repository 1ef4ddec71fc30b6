"""What a thread has read of the log's sources and the event loop has not taken yet. No I/O; one lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from forebay.core.fact import Fact
from forebay.ports.event_log import LogBatch

FULL_RECORDS = 4000
FULL_BYTES = 16 * 1024 * 1024
"""The reader stops at either: a few batches ahead of a projector, whatever waits in the log."""

TAKE_BYTES = 4 * 1024 * 1024
"""One `take` ends after this many bytes of values: bounds a projector's transaction when inputs are large."""


class Entry(NamedTuple):
    """`fact` is None for a record that nobody can read."""

    offset: int
    fact: Fact | None
    size_bytes: int


class Shelf:
    """The records of one source from `position` on, without gaps. `at_end`: the reader has met the source's end since
    it was moved here."""

    __slots__ = ("at_end", "entries", "position", "size_bytes", "tail")

    def __init__(self, position: str) -> None:
        self.position = position
        self.entries: deque[Entry] = deque()
        self.tail = int(position or 0)  # the offset after the last record that was read, or passed over
        self.size_bytes = 0
        self.at_end = False

    def put(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.tail = entry.offset + 1
        self.size_bytes += entry.size_bytes

    @property
    def worth(self) -> int:
        """How many records a `take` can have; 1 if it can only pass over what holds no records, such as the marks of
        somebody's transactions."""
        return len(self.entries) or int(self.tail > int(self.position or 0))

    def take(self, source: str, limit: int, limit_bytes: int) -> LogBatch:
        """At least one record, if there are any."""
        taken: list[Entry] = []
        size_bytes = 0
        while self.entries and len(taken) < limit and (not taken or size_bytes < limit_bytes):
            entry = self.entries.popleft()
            taken.append(entry)
            size_bytes += entry.size_bytes
        self.size_bytes -= size_bytes
        start, self.position = self.position, str(taken[-1].offset + 1 if self.entries else self.tail)
        facts = tuple(entry.fact for entry in taken if entry.fact is not None)
        return LogBatch(source=source, start=start, end=self.position, facts=facts, malformed=len(taken) - len(facts))


class Shelves:
    """Filled by one thread, emptied by one event loop."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._shelves: dict[str, Shelf] = {}
        self._moves: dict[str, str] = {}

    # ---------------------------------------------------------------------------------------------- in the event loop

    def look(self, after: Mapping[str, str], limit: int) -> tuple[list[LogBatch], bool]:
        """What stands after these positions, and whether the end of each of these sources is known.

        A source whose shelf stands elsewhere, or that has none, is moved there by the reader.
        """
        with self.changed:
            here: dict[str, Shelf] = {}
            for source, position in after.items():
                shelf = self._shelves.get(source)
                if shelf is not None and shelf.position == position and source not in self._moves:
                    here[source] = shelf
                elif self._moves.get(source) != position:
                    self._moves[source] = position
                    self.changed.notify()
            worth = {source: shelf for source, shelf in here.items() if shelf.worth}
            batches = _take(worth, limit)
            if batches:
                self.changed.notify()  # there may be room again
            return batches, len(here) == len(after) and all(shelf.at_end for shelf in here.values())

    # --------------------------------------------------------------------------------------------------- in the thread

    @property
    def full(self) -> bool:
        with self.changed:
            records = sum(len(shelf.entries) for shelf in self._shelves.values())
            size_bytes = sum(shelf.size_bytes for shelf in self._shelves.values())
            return records >= FULL_RECORDS or size_bytes >= FULL_BYTES

    def moves(self, sources: Sequence[str]) -> dict[str, str]:
        """Where those of these sources are to be read from now on, of which somebody said so since the last call: their
        shelves are empty and stand there when this returns."""
        with self.changed:
            moves, self._moves = self._moves, {}
            moves = {source: position for source, position in moves.items() if source in sources}
            self._shelves.update((source, Shelf(position)) for source, position in moves.items())
            return moves

    def keep_only(self, sources: Sequence[str]) -> None:
        """Forget all others."""
        with self.changed:
            self._shelves = {source: shelf for source, shelf in self._shelves.items() if source in sources}
            self._moves = {source: position for source, position in self._moves.items() if source in sources}

    def forget(self, sources: Iterable[str]) -> None:
        with self.changed:
            for source in sources:
                self._shelves.pop(source, None)

    def put(self, source: str, entry: Entry) -> None:
        with self.changed:
            if (shelf := self._shelves.get(source)) is not None:
                shelf.put(entry)

    def end(self, source: str, offset: int) -> None:
        """The reader has met the end of the source, at this offset."""
        with self.changed:
            if (shelf := self._shelves.get(source)) is not None:
                shelf.tail = max(shelf.tail, offset)
                shelf.at_end = True

    def position(self, source: str) -> str | None:
        """Where the shelf stands; None without one."""
        with self.changed:
            shelf = self._shelves.get(source)
            return None if shelf is None else shelf.position


def _take(shelves: Mapping[str, Shelf], limit: int) -> list[LogBatch]:
    """At most `limit` records, shared so that no source waits for another that has many, or large ones."""
    batches, left = [], limit
    limit_bytes = TAKE_BYTES // max(1, len(shelves))
    for index, source in enumerate(sorted(shelves, key=lambda source: shelves[source].worth)):
        share = -(-left // (len(shelves) - index))
        if count := min(share, shelves[source].worth):
            batches.append(shelves[source].take(source, count, limit_bytes))
            left -= count
    return batches
