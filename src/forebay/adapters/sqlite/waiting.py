"""What one channel has waiting and in hand. In memory, so that the death of the process gives everything back."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.adapters.sqlite.bell import Bell
from forebay.adapters.sqlite.database import Database
from forebay.core.message import Channel

NEVER_US = 2**63 - 1
Found = tuple[int, int, int, int, str, str, bytes, bytes, float]
"""due_at_us, seq, attempt, interruptions, tenant, job_id, headers, value, logged_at"""

_COLUMNS = "due_at_us, pending.seq, attempt, running + cut_off, tenant, job_id, headers, value, logged_at"
_FROM = f"SELECT {_COLUMNS} FROM pending JOIN log ON log.seq = pending.seq WHERE model = ? AND lane = ?"
_FRESH = f"{_FROM} AND due_at_us = 0 AND pending.seq > ? ORDER BY pending.seq LIMIT ?"
_DELAYED = f"{_FROM} AND due_at_us <= ? AND (due_at_us, pending.seq) > (?, ?) ORDER BY due_at_us, pending.seq LIMIT ?"
_NEXT_DUE = "SELECT min(due_at_us) FROM pending WHERE model = ? AND lane = ? AND (due_at_us, seq) > (?, ?)"
_COUNT = "SELECT count(*) FROM pending WHERE model = ? AND lane = ?"


class Waiting:
    """Hands out the rows of a channel, each to one consumer at a time.

    Two cursors stand before the first row that may not have been handed out: one for rows that wait for nothing, in
    order of arrival, one for delayed rows, in order of the time they are due. A row that is given back pulls its cursor
    back before it; rows in hand that are met again are passed over. So memory holds what is in hand, however many wait.
    Delayed rows that are due go first: they arrived earlier.
    """

    def __init__(self, database: Database, channel: Channel) -> None:
        self._database = database
        self._key = (channel.model, channel.lane)
        self._in_hand: set[int] = set()
        self._forgotten: set[int] = set()  # rows in hand that are deleted
        self._fresh_after = 0
        self._fresh_may_wait = True
        self._delayed_after = (0, 2**62)  # after every row that is due at 0
        self._next_due_us: int | None = 0  # None: to be looked up
        self.bell = Bell()
        self.depth: int = database.read(_COUNT, self._key)[0][0]

    def take(self, limit: int, now_us: int) -> list[Found]:
        found: list[Found] = []
        if self.next_due_us() <= now_us:
            found = self._take_delayed(limit, now_us)
        while self._fresh_may_wait and len(found) < limit:
            rows = self._database.read(_FRESH, (*self._key, self._fresh_after, limit - len(found)))
            self._fresh_may_wait = len(rows) == limit - len(found)
            if rows:
                self._fresh_after = rows[-1][1]
                found += self._grip(rows)
        return found

    def _take_delayed(self, limit: int, now_us: int) -> list[Found]:
        found: list[Found] = []
        while len(found) < limit:
            missing = limit - len(found)
            rows = self._database.read(_DELAYED, (*self._key, now_us, *self._delayed_after, missing))
            if rows:
                self._delayed_after = rows[-1][:2]
                found += self._grip(rows)
            if len(rows) < missing:
                break
        self._next_due_us = None
        return found

    def _grip(self, rows: list[Found]) -> list[Found]:
        new = [row for row in rows if row[1] not in self._in_hand]
        self._in_hand.update(row[1] for row in new)
        return new

    def next_due_us(self) -> int:
        """When the first delayed row that is in nobody's hand is due, NEVER_US if there is none."""
        if self._next_due_us is None:
            due = self._database.read(_NEXT_DUE, (*self._key, *self._delayed_after))[0][0]
            self._next_due_us = NEVER_US if due is None else due
        return self._next_due_us

    def arrived(self, count: int) -> None:
        """So many rows were published and are committed."""
        self.depth += count
        self._fresh_may_wait = True
        self.bell.ring()

    def gone(self, seq: int) -> None:
        """A row in hand was acknowledged and is deleted."""
        self._in_hand.discard(seq)
        self._forgotten.discard(seq)
        self.depth -= 1

    def forgotten(self, seqs: Sequence[int]) -> None:
        """Rows were deleted, whether they were in hand or not. Those that are count until they leave it."""
        held = self._in_hand.intersection(seqs)
        self._forgotten |= held
        self.depth -= len(seqs) - len(held)

    def given_back(self, due_at_us: int, seq: int) -> None:
        """A row in hand waits again, under `due_at_us`. Ring the bell after the last of several."""
        if seq in self._forgotten:
            return self.gone(seq)
        self._in_hand.discard(seq)
        if due_at_us == 0:
            self._fresh_after = min(self._fresh_after, seq - 1)
            self._fresh_may_wait = True
        else:
            self._delayed_after = min(self._delayed_after, (due_at_us, seq - 1))
            if self._next_due_us is not None:
                self._next_due_us = min(self._next_due_us, due_at_us)
