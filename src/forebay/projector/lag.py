"""How far visible state is behind the log, for a process that reads the one and does not write it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from forebay.core.errors import Unavailable
from forebay.ports.event_log import START, EventLog
from forebay.ports.store import ResultStore

LOOK_EVERY_S = 2.0
"""Far less than the minute for which an id without a row is `queued` anyway (api/reading.py)."""

log = structlog.get_logger()


class LagWatch:
    """Notes where the log ends, and measures how long the store takes to get there."""

    def __init__(self, events: EventLog, store: ResultStore, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._events = events
        self._store = store
        self._monotonic = monotonic
        self._behind_since: float | None = None

    def lag_s(self) -> float:
        """Seconds since the store was last known to hold all that had been in the log; 0.0 while it keeps up. At least
        that much while nobody can say."""
        return 0.0 if self._behind_since is None else self._monotonic() - self._behind_since

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._look()
            except Unavailable as error:
                log.warning("lag.unknown", error=error.message)
                if self._behind_since is None:
                    self._behind_since = self._monotonic()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        """One mark set at the log's end, and waited for until the store has passed it."""
        noted_at, ends = self._monotonic(), await self._events.ends()
        while not await self._passed(ends):
            self._behind_since = noted_at if self._behind_since is None else self._behind_since
            await asyncio.sleep(LOOK_EVERY_S)
        self._behind_since = None

    async def _passed(self, ends: Mapping[str, str]) -> bool:
        there = await self._store.positions()
        left = await self._events.behind({source: there.get(source, START) for source in ends})
        beyond = await self._events.behind(ends)
        return all(left.get(source, 0) <= beyond.get(source, 0) for source in ends)
