"""What one consumer has: its parts of the channel, the messages that wait in it, those that are out, what to commit.

No I/O. The reader's thread and the event loop meet here and nowhere else, under one lock: the thread feeds records
and commits, the loop takes messages and says how they ended. So an acknowledgement is a matter of memory, and only what
must survive a death waits for the thread (`Request`).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable

import structlog

from forebay.adapters.kafka.commits import Commit, Commits
from forebay.adapters.kafka.entries import Entry, Part, Place, Request
from forebay.adapters.kafka.tracker import Mark, Tracker

log = structlog.get_logger(__name__)

ANY_NUMBER = 2**31

MOST_UNREADABLE = 64
"""In hand at once, while they become dead letters. Where there are more their partitions wait: should the dead-letter
topic be away, memory does not fill with them."""


class Hand:
    """`ring` is called whenever messages wait that somebody asked for in vain. `most_of_a_part` bounds what may be
    unfinished of one partition beside the limit of its metadata."""

    def __init__(self, ring: Callable[[], None], *, most_of_a_part: int = ANY_NUMBER) -> None:
        self.changed = threading.Condition()
        self.closing = False
        self.hungry = False
        self.ended_since_commit = 0
        self._ring = ring
        self._most_of_a_part = most_of_a_part
        self._parts: dict[Place, Part] = {}
        self._waiting: deque[Entry] = deque()
        self._held: dict[int, Entry] = {}
        self._unreadable: set[int] = set()  # of those held
        self._receipts = itertools.count(1)
        self._commits = Commits(self._parts, self._held)
        self._wanted = 0
        self._stirred = False

    # -------------------------------------------------------------------------------------------------------- the loop

    def take(self, most: int) -> list[tuple[Entry, Mark]]:
        """Up to `most` of what waits, now in hand, and what is known of their attempts. With none, `ring` will tell."""
        taken: list[tuple[Entry, Mark]] = []
        with self.changed:
            self._wanted = max(most, self._wanted)
            while self._waiting and len(taken) < most:
                entry = self._waiting.popleft()
                taken.append((entry, self._mark(entry)))
                self._hold(entry)
            self.hungry = self.hungry or not taken
            self._stir()
        return taken

    def holds(self, receipt: object) -> bool:
        return receipt in self._held

    def keep(self, receipts: Iterable[object]) -> list[tuple[Entry, Mark]]:
        """Those of them that are in hand, with what is known of their attempts. A revocation will now wait for them."""
        with self.changed:
            entries = self._those_held(receipts)
            for entry in entries:
                entry.busy = True
            return [(entry, self._mark(entry)) for entry in entries]

    def done(self, receipts: Iterable[object]) -> None:
        with self.changed:
            for entry in self._those_held(receipts):
                part = self._let_go(entry)
                part.known.done(entry.offset)
                self.ended_since_commit += 1
            self._stir()

    def give_back(self, receipts: Iterable[object]) -> bool:
        """To be taken again. Whether one of them ran, so that the end of its attempt is to be committed."""
        ran = False
        with self.changed:
            for entry in reversed(self._those_held(receipts)):
                part = self._let_go(entry)
                ran |= self._end(entry, part)
                entry.busy = False
                if not part.leaving:
                    self._waiting.appendleft(entry)
            self._feed_hungry()
            self._stir()
        return ran

    def retract(self, receipts: Iterable[object]) -> None:
        """Nothing has run of their last attempts: they were not begun. To be committed soon."""
        with self.changed:
            for entry in self._those_held(receipts):
                part = self._parts[entry.place]
                part.known.retract(entry.offset)
                part.changes += 1
                entry.busy = False
            self._commits.ask_for_nothing()
            self._stir()

    def ask(self, request: Request) -> None:
        with self.changed:
            self._commits.ask(request)
            self._stir()

    def withdraw(self, request: Request) -> bool:
        """Nobody waits for it any more: if it is not settled, it has not happened."""
        with self.changed:
            if not request.settled:
                self._commits.withdraw(request)
                self._stir()
            return request.withdrawn

    def close(self) -> None:
        """Nothing is handed out any more; the thread ends."""
        with self.changed:
            self.closing = True
            self._held.clear()
            self._waiting.clear()
            self._stir()

    # ------------------------------------------------------------------------------------------------------ the thread

    @property
    def places(self) -> list[Place]:
        return list(self._parts)

    @property
    def wanted(self) -> int:
        """How many more should wait here: as many as were ever asked for at once."""
        return self._wanted - len(self._waiting)

    @property
    def load(self) -> int:
        """How many wait or are in hand."""
        return len(self._waiting) + len(self._held)

    @property
    def expects_a_begin(self) -> bool:
        """Whether there is something that may begin at any time."""
        with self.changed:
            return bool(self._waiting) or any(not entry.busy for entry in self._held.values())

    @property
    def requested(self) -> bool:
        return self._commits.requested

    @property
    def dirty(self) -> bool:
        """Whether there is anything that is not committed."""
        with self.changed:
            return self._commits.due

    def wait(self, timeout_s: float) -> None:
        """Until the loop has done something since the last call, or `timeout_s`."""
        with self.changed:
            if not self._stirred:
                self.changed.wait(timeout_s)
            self._stirred = False

    def assigned(self, place: Place, tracker: Tracker | None) -> None:
        with self.changed:
            self._parts[place] = Part(tracker)

    def feed(self, entries: Iterable[Entry]) -> list[Entry]:
        """Take these in, in the order of their offsets. Returns those that nobody can read: they are in hand, busy."""
        unreadable: list[Entry] = []
        with self.changed:
            for entry in entries:
                part = self._parts.get(entry.place)
                if part is None or part.leaving:
                    continue  # of a partition that is no longer ours
                tracker = part.tracker = part.tracker or Tracker(entry.offset)
                if entry.offset < (part.stash[-1].offset + 1 if part.stash else tracker.next_offset):
                    tracker = self._log_was_cut(entry, part)
                if part.stash or not self._takes(entry, tracker):
                    part.stash.append(entry)
                    if not self._room(tracker):  # else only that it is unreadable keeps it
                        part.stashed_at = tracker.unfinished
                else:
                    self._admit(entry, part, unreadable)
            self._feed_hungry()
        return unreadable

    def unstash(self) -> list[Entry]:
        """Take in what there is room for now; as `feed`."""
        unreadable: list[Entry] = []
        with self.changed:
            for part in self._parts.values():
                while part.stash and self._takes(part.stash[0], part.known):
                    self._admit(part.stash.popleft(), part, unreadable)
            self._feed_hungry()
        return unreadable

    def stashing(self) -> set[Place]:
        """Of which partitions nothing more should come for now: until nothing is stashed and half is done."""
        with self.changed:
            for part in self._parts.values():
                if not part.stash and part.stashed_at and 2 * part.known.unfinished <= part.stashed_at:
                    part.stashed_at = 0
            return {place for place, part in self._parts.items() if part.stash or part.stashed_at}

    def prepare(self) -> Commit | None:
        """What to commit now; None for nothing. Attempts that are to begin are marked; `settle` must follow."""
        with self.changed:
            commit = self._commits.prepare()
            if commit is not None:
                self.ended_since_commit = 0
            return commit

    def settle(self, commit: Commit, error: str | None, now: float) -> None:
        """It was committed, or why it was not: then its requests stay until their deadlines."""
        with self.changed:
            if error is None:
                self._commits.succeeded(commit)
            else:
                self._commits.failed(commit, error, now)

    def leaving(self, places: Iterable[Place]) -> None:
        """These will be another's. What has not begun is no longer in hand."""
        with self.changed:
            leaving = set(places)
            for place in leaving & self._parts.keys():
                self._parts[place].leaving = True
                self._parts[place].stash.clear()
            self._drop(lambda entry: entry.place in leaving and not entry.busy)

    def busy_in(self, places: Iterable[Place]) -> bool:
        with self.changed:
            leaving = set(places)
            return any(entry.place in leaving for entry in self._held.values())

    def let_run_elsewhere(self, places: Iterable[Place]) -> None:
        """Nobody waits any longer for what runs of these. Its attempts stay counted, as ended and not as cut off: its
        holder lives, and has done nothing wrong."""
        with self.changed:
            leaving = set(places)
            for entry in self._held.values():
                if entry.place in leaving:
                    part = self._parts[entry.place]
                    part.changes += self._end(entry, part)

    def gone(self, places: Iterable[Place]) -> None:
        """These are not ours any more: what is in hand of them is so no longer."""
        with self.changed:
            gone = set(places)
            self._drop(lambda entry: entry.place in gone)
            for place in gone:
                self._parts.pop(place, None)

    # -------------------------------------------------------------------------------------------------- under the lock

    def _stir(self) -> None:
        self._stirred = True
        self.changed.notify_all()

    def _feed_hungry(self) -> None:
        if self.hungry and self._waiting:
            self.hungry = False
            self._ring()

    def _mark(self, entry: Entry) -> Mark:
        return self._parts[entry.place].known.mark(entry.offset) or entry.known

    def _takes(self, entry: Entry, tracker: Tracker) -> bool:
        return self._room(tracker) and (entry.message is not None or len(self._unreadable) < MOST_UNREADABLE)

    def _room(self, tracker: Tracker) -> bool:
        return tracker.unfinished < self._most_of_a_part and tracker.room > 0

    def _those_held(self, receipts: Iterable[object]) -> list[Entry]:
        return [entry for one in receipts if (entry := self._held.get(one)) is not None]  # type: ignore[call-overload]  # any object is asked for

    def _hold(self, entry: Entry) -> None:
        entry.receipt = next(self._receipts)
        entry.busy = False
        self._held[entry.receipt] = entry

    def _unhold(self, entry: Entry) -> None:
        del self._held[entry.receipt]
        self._unreadable.discard(entry.receipt)

    def _let_go(self, entry: Entry) -> Part:
        self._unhold(entry)
        part = self._parts[entry.place]
        part.changes += 1
        return part

    def _end(self, entry: Entry, part: Part) -> bool:
        """End its attempt; whether one ran."""
        mark = part.known.mark(entry.offset)
        if mark is None or not mark.running:
            return False
        part.known.end(entry.offset)
        return True

    def _admit(self, entry: Entry, part: Part, unreadable: list[Entry]) -> None:
        tracker = part.known
        missing, before = entry.offset - tracker.next_offset, tracker.watermark
        if missing > 1:  # one is a transaction's marker
            log.warning("queue.offsets_missing", topic=entry.place[0], partition=entry.place[1], count=missing)
        handed_out = tracker.admit(entry.offset)
        part.changes += tracker.watermark != before
        if not handed_out:
            return
        if entry.message is not None:
            self._waiting.append(entry)
        else:
            self._hold(entry)
            entry.busy = True
            self._unreadable.add(entry.receipt)
            unreadable.append(entry)

    def _log_was_cut(self, entry: Entry, part: Part) -> Tracker:
        """The log goes on below what was read: it was cut by an unclean election, or the topic was made anew. What is
        there now has nothing to do with what was there before."""
        log.error("queue.log_was_cut", topic=entry.place[0], partition=entry.place[1], offset=entry.offset)
        self._drop(lambda other: other.place == entry.place)
        part.stash.clear()
        part.tracker = Tracker(entry.offset)
        part.changes += 1
        return part.tracker

    def _drop(self, goes: Callable[[Entry], bool]) -> None:
        self._waiting = deque(entry for entry in self._waiting if not goes(entry))
        for entry in [entry for entry in self._held.values() if goes(entry)]:
            self._unhold(entry)
        self._commits.refuse_revoked()
        self.changed.notify_all()
