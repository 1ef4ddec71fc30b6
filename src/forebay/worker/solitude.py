"""Who may run beside whom in one worker process.

A job whose worker died in an earlier attempt may have been what killed it. Until that is known it runs with nothing
else in the process, of any model: so that whatever it does falls on it alone, and no neighbour is counted an attempt.
"""

from __future__ import annotations

import asyncio


class Solitude:
    """Batches enter before they are handed to a runner and leave when what became of them is on record. Shared by the
    workers of a process, on one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._occupied_alone = False
        self._wanting: set[object] = set()
        self._doors: set[asyncio.Event] = set()

    def watch(self, door: asyncio.Event) -> None:
        """Set `door` whenever somebody who was refused may try again."""
        self._doors.add(door)

    def unwatch(self, door: asyncio.Event) -> None:
        self._doors.discard(door)

    def enter(self, who: object, *, alone: bool) -> bool:
        """Whether a batch of `who` may start now. One that wants to be alone and is refused lets nobody new in until it
        had its turn, so that it waits no longer than what runs; `give_up` ends that."""
        if alone and self._inside:
            self._wanting.add(who)
            return False
        if not alone and (self._occupied_alone or self._wanting):
            return False
        self._wanting.discard(who)
        self._inside += 1
        self._occupied_alone = alone
        return True

    def leave(self) -> None:
        self._inside -= 1
        self._occupied_alone = False
        self._open_doors()

    def give_up(self, who: object) -> None:
        """`who` has nothing that could start now."""
        if who in self._wanting:
            self._wanting.discard(who)
            self._open_doors()

    def _open_doors(self) -> None:
        for door in self._doors:
            door.set()
