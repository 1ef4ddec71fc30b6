"""What goes into the next commit, and who waits for it. Used under the lock of the hand that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from msgspec import Struct

from forebay.adapters.kafka.entries import Entry, Part, Place, Request
from forebay.core.errors import Revoked, Unavailable

log = structlog.get_logger(__name__)


class Commit(Struct):
    """Watermark and metadata of each place whose tracker has moved, and the requests that are answered by it."""

    offsets: list[tuple[Place, int, str]]
    changes: dict[Place, int]
    requests: list[Request]


class Commits:
    """`parts` and `held` are the hand's own."""

    def __init__(self, parts: Mapping[Place, Part], held: Mapping[int, Entry]) -> None:
        self._parts = parts
        self._held = held
        self._requests: list[Request] = []

    @property
    def requested(self) -> bool:
        return bool(self._requests)

    @property
    def due(self) -> bool:
        """Whether there is anything that is not committed."""
        return any(part.changes != part.committed for part in self._parts.values())

    def ask(self, request: Request) -> None:
        self._requests.append(request)

    def ask_for_nothing(self) -> None:
        """A commit, soon, that nobody waits for."""
        self._requests.append(Request(receipts=(), answer=lambda _: None, deadline=0.0))

    def withdraw(self, request: Request) -> None:
        """Take its marks back at once, though the commit that carries them may be under way: what is said of its
        messages from now on, perhaps in a record elsewhere, counts no attempt that never ran. The next commit, soon,
        tells the brokers."""
        request.withdrawn = True
        if request.before:
            self._take_back(request)
            self.ask_for_nothing()

    def refuse_revoked(self) -> None:
        """Answer those that wait for something that is no longer in hand."""
        for request in self._requests:
            if not self._in_hand(request):
                request.settle(_revoked())
        self._requests = [request for request in self._requests if not request.settled]

    def prepare(self) -> Commit | None:
        """Mark the attempts that are to begin, and say what to commit; None for nothing."""
        requests, self._requests = self._requests, []
        requests = [request for request in requests if self._begin(request)]
        commit = Commit([], {}, requests)
        for place, part in self._parts.items():
            if part.changes == part.committed:
                continue
            if (metadata := part.known.metadata()) is None:
                commit.requests = self._refuse(commit.requests, place)
                if (metadata := part.known.metadata()) is None:
                    log.error("queue.metadata_too_long", topic=place[0], partition=place[1])
                    continue
            commit.offsets.append((place, part.known.watermark, metadata))
            commit.changes[place] = part.changes
        if commit.offsets:
            return commit
        self._confirm(commit.requests)
        return None

    def succeeded(self, commit: Commit) -> None:
        for place, changes in commit.changes.items():
            self._parts[place].committed = changes
        self._confirm(commit.requests)

    def failed(self, commit: Commit, error: str, now: float) -> None:
        """Its requests are tried again until their deadlines."""
        for request in commit.requests:
            self._take_back(request)
            if now < request.deadline:
                self._requests.append(request)
            else:
                request.settle(Unavailable(f"Kafka does not take the commit: {error}"))

    def _in_hand(self, request: Request) -> bool:
        return all(receipt in self._held for receipt in request.receipts)

    def _begin(self, request: Request) -> bool:
        """Mark all of them, or none if one is not in hand."""
        if request.withdrawn:
            return False
        if not self._in_hand(request):
            request.settle(_revoked())
            return False
        request.before = []
        for receipt in request.receipts:
            entry = self._held[receipt]
            part = self._parts[entry.place]
            request.before.append((entry, part.known.mark(entry.offset)))
            part.known.begin(entry.offset, entry.known)
            part.changes += 1
        return True

    def _take_back(self, request: Request) -> None:
        for entry, mark in reversed(request.before):
            part = self._parts[entry.place]
            part.known.restore(entry.offset, mark)
            part.changes += 1
        request.before = []

    def _refuse(self, requests: Sequence[Request], place: Place) -> list[Request]:
        """Take back what does not fit into the metadata of `place`; returns the others."""
        fitting = []
        for request in requests:
            if any(entry.place == place for entry, _ in request.before):
                self._take_back(request)
                request.settle(Unavailable("more attempts run in one partition than its commit has room for"))
            else:
                fitting.append(request)
        return fitting

    def _confirm(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if request.withdrawn:
                continue
            for entry, _ in request.before:
                entry.busy = True
            request.settle(None)


def _revoked() -> Revoked:
    return Revoked("messages are no longer in hand: their part of the channel went to another consumer")
