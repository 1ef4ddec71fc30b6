"""Whether the queue answers."""

from __future__ import annotations

import asyncio

import structlog

from forebay.api.submission import ModelCatalog
from forebay.core.errors import Unavailable
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.ports.queue import Queue

log = structlog.get_logger()

PROBE_S = 2.0
"""A queue that does not tell its depth within this is away: under the usual three seconds of a readiness probe."""


class QueueProbe:
    def __init__(self, queue: Queue, catalog: ModelCatalog) -> None:
        self._queue = queue
        self._channel = Channel(next(iter(catalog.specs), "probe"), Lane.NORMAL.value)

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
