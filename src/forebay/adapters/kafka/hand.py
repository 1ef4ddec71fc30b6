"""What one consumer has: its parts of the channel, the messages that wait in it, those that are out, what to commit.

No I/O. The reader's thread and the event loop meet here and nowhere else, under one lock: the thread feeds records
and commits, the loop takes messages and says how they ended. So an acknowledgement is a matter of memory, and only what
must survive a death waits for the thread (`Request`).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import confluent_kafka
import structlog
from msgspec import Struct, field

from forebay.adapters.kafka.tracker import Mark, Tracker
from forebay.core.errors import ForebayError, InvalidRequest, Revoked, Unavailable
from forebay.core.message import Message

log = structlog.get_logger(__name__)

Place = tuple[str, int]
"""Topic and partition."""

ANY_NUMBER = 2**31


class Entry(Struct, eq=False, kw_only=True):
    """One record. `message` is None where nobody can read it, `refusal` says why. `known` is what the record itself
    says of attempts elsewhere. `receipt` is 0 while nobody has it; `busy` once its outcome is on its way: begun, or
    about to be published somewhere else, so that a revocation waits for it."""

    place: Place
    offset: int
    record: confluent_kafka.Message
    message: Message | None
    refusal: InvalidRequest | None = None
    known: Mark = Mark()
    receipt: int = 0
    busy: bool = False


class Request(Struct, eq=False, kw_only=True):
    """Commit what there is, with an attempt of each of these begun; of none: only commit.

    `answer` is called once, from any thread, unless the request was withdrawn. `deadline` is monotonic.
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


class Commit(Struct):
    """What to commit: watermark and metadata of each place, and the requests that it answers."""

    offsets: list[tuple[Place, int, str]]
    changes: dict[Place, int]
    requests: list[Request]


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
        self._receipts = itertools.count(1)
        self._requests: list[Request] = []
        self._wanted = 0
        self._stirred = False

    # -------------------------------------------------------------------------------------------------------- the loop

    def take(self, most: int) -> list[tuple[Entry, Mark]]:
        """Up to `most` of what waits, now in hand, and what is known of their attempts. With none, `ring` will tell."""
        taken: list[tuple[Entry, Mark]] = []
        with self.changed:
            self._wanted = most
            while self._waiting and len(taken) < most:
                entry = self._waiting.popleft()
                taken.append((entry, self._mark(entry)))
                self._hold(entry)
            self.hungry = self.hungry or not taken
            self._stir()
        return taken

    def holds(self, receipt: object) -> bool:
        return receipt in self._held

    def ask(self, request: Request) -> None:
        with self.changed:
            self._requests.append(request)
            self._stir()

    def withdraw(self, request: Request) -> bool:
        """Nobody waits for it any more: if it is not settled, it has not happened."""
        with self.changed:
            request.withdrawn = not request.settled
            return request.withdrawn

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
                self._tracker(part).done(entry.offset)
                self.ended_since_commit += 1
            self._stir()

    def give_back(self, receipts: Iterable[object]) -> bool:
        """To be taken again. Whether one of them ran, so that the end of its attempt is to be committed."""
        ran = False
        with self.changed:
            for entry in reversed(self._those_held(receipts)):
                part = self._let_go(entry)
                mark = self._tracker(part).mark(entry.offset)
                if mark is not None and mark.running:
                    ran = True
                    self._tracker(part).end(entry.offset)
                if not part.leaving:
                    self._waiting.appendleft(entry)
            self._feed_hungry()
            self._stir()
        return ran

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
        """How many more should wait here: as many as were last asked for."""
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
                if part.stash or not self._room(tracker):
                    part.stash.append(entry)
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
                while part.stash and self._room(self._tracker(part)):
                    self._admit(part.stash.popleft(), part, unreadable)
            self._feed_hungry()
        return unreadable

    def stashing(self) -> set[Place]:
        """Of which partitions nothing more should come for now: until nothing is stashed and half is done."""
        with self.changed:
            for part in self._parts.values():
                if not part.stash and part.stashed_at and 2 * self._tracker(part).unfinished <= part.stashed_at:
                    part.stashed_at = 0
            return {place for place, part in self._parts.items() if part.stash or part.stashed_at}

    @property
    def requested(self) -> bool:
        return bool(self._requests)

    @property
    def dirty(self) -> bool:
        with self.changed:
            return any(part.changes != part.committed for part in self._parts.values())

    def prepare(self) -> Commit | None:
        """What to commit now; None for nothing. Attempts that are to begin are marked; `settle` must follow."""
        with self.changed:
            requests, self._requests = self._requests, []
            requests = [request for request in requests if self._mark_begun(request)]
            offsets: dict[Place, tuple[int, str]] = {}
            changes: dict[Place, int] = {}
            for place, part in self._parts.items():
                if part.changes == part.committed:
                    continue
                tracker = self._tracker(part)
                if (metadata := tracker.metadata()) is None:
                    requests = self._refuse(requests, place)
                    if (metadata := tracker.metadata()) is None:
                        log.error("queue.metadata_too_long", topic=place[0], partition=place[1])
                        continue
                offsets[place] = (tracker.watermark, metadata)
                changes[place] = part.changes
            if not offsets:
                self._settle(requests, None)
                return None
            self.ended_since_commit = 0
            return Commit([(place, *offset) for place, offset in offsets.items()], changes, requests)

    def settle(self, commit: Commit, error: str | None, now: float) -> None:
        """It was committed, or why it was not: then its requests stay until their deadlines."""
        with self.changed:
            if error is None:
                for place, changes in commit.changes.items():
                    self._parts[place].committed = changes
                self._settle(commit.requests, None)
                return
            for request in commit.requests:
                self._take_back(request)
                if now < request.deadline:
                    self._requests.append(request)
                else:
                    request.settle(Unavailable(f"Kafka does not take the commit: {error}"))

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

    def _tracker(self, part: Part) -> Tracker:
        assert part.tracker is not None, "nothing was read of it"
        return part.tracker

    def _mark(self, entry: Entry) -> Mark:
        return self._tracker(self._parts[entry.place]).mark(entry.offset) or entry.known

    def _room(self, tracker: Tracker) -> bool:
        return tracker.unfinished < self._most_of_a_part and tracker.room > 0

    def _those_held(self, receipts: Iterable[object]) -> list[Entry]:
        return [entry for one in receipts if (entry := self._held.get(one)) is not None]  # type: ignore[call-overload]

    def _hold(self, entry: Entry) -> None:
        entry.receipt = next(self._receipts)
        entry.busy = False
        self._held[entry.receipt] = entry

    def _let_go(self, entry: Entry) -> Part:
        del self._held[entry.receipt]
        part = self._parts[entry.place]
        part.changes += 1
        return part

    def _admit(self, entry: Entry, part: Part, unreadable: list[Entry]) -> None:
        tracker = self._tracker(part)
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
        self._held = {receipt: entry for receipt, entry in self._held.items() if not goes(entry)}
        revoked = [request for request in self._requests if not all(map(self.holds, request.receipts))]
        self._requests = [request for request in self._requests if request not in revoked]
        for request in revoked:
            request.settle(_revoked())
        self.changed.notify_all()

    def _mark_begun(self, request: Request) -> bool:
        """Mark all of them, or none if one is not in hand."""
        if request.withdrawn:
            return False
        entries = self._those_held(request.receipts)
        if len(entries) < len(request.receipts):
            request.settle(_revoked())
            return False
        request.before = []
        for entry in entries:
            part = self._parts[entry.place]
            request.before.append((entry, self._tracker(part).mark(entry.offset)))
            self._tracker(part).begin(entry.offset, entry.known)
            part.changes += 1
        return True

    def _take_back(self, request: Request) -> None:
        for entry, mark in reversed(request.before):
            if (part := self._parts.get(entry.place)) is not None:
                self._tracker(part).restore(entry.offset, mark)
                part.changes += 1

    def _refuse(self, requests: list[Request], place: Place) -> list[Request]:
        """Take back what does not fit into the metadata of `place`; returns the others."""
        fitting = []
        for request in requests:
            if any(entry.place == place for entry, _ in request.before):
                self._take_back(request)
                request.settle(Unavailable("more attempts run in one partition than its commit has room for"))
            else:
                fitting.append(request)
        return fitting

    def _settle(self, requests: Sequence[Request], error: ForebayError | None) -> None:
        for request in requests:
            if request.withdrawn:
                self._take_back(request)
                continue
            for entry, _ in request.before:
                entry.busy = True
            request.settle(error)


def _revoked() -> Revoked:
    return Revoked("messages are no longer in hand: their part of the channel went to another consumer")
