"""Whether the queue answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from forebay.api.submission import ModelCatalog
from forebay.core.errors import Unavailable
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.ports.queue import Queue

log = structlog.get_logger()

PROBE_S = 2.0
"""A queue that does not tell its depth within this is away: under the usual three seconds of a readiness probe."""


KNOWN_FOR_S = 1.0
"""On Kafka a depth is some questions to brokers: whoever looks at many jobs asks them once a second."""


class QueueProbe:
    def __init__(self, queue: Queue, catalog: ModelCatalog, monotonic: Callable[[], float]) -> None:
        self._queue = queue
        self._channel = Channel(next(iter(catalog.specs), "probe"), Lane.NORMAL.value)
        self._monotonic = monotonic
        self._asked_at = float("-inf")
        self._asked: asyncio.Task[tuple[str, float]] | None = None

    async def away_lately(self) -> str:
        """As `away`, as it was up to KNOWN_FOR_S ago; asked once for all who want to know."""
        now = self._monotonic()
        if self._asked is None or (self._asked.done() and now - self._asked_at >= KNOWN_FOR_S):
            self._asked_at = now
            self._asked = asyncio.create_task(self.away(), name="probe")
        return (await asyncio.shield(self._asked))[0]

    async def away(self) -> tuple[str, float]:
        """Why the queue cannot be reached, "" if it can, and seconds after which to ask again."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self._queue.depth(self._channel)
        except TimeoutError:
            return f"the queue did not answer within {PROBE_S:g} s", 1.0
        except Unavailable as error:
            log.warning("queue.away", code=error.code, error=error.message)
            return "the queue is away; the service's log has the reason", error.retry_after_s
        return "", 0.0
