"""How much waits in each lane, for whoever scrapes metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from forebay.core.errors import Unavailable
from forebay.core.message import Channel
from forebay.ports.queue import Queue
from forebay.telemetry.metrics import Metrics

WITHIN_S = 3.0
"""Prometheus gives up after 10 s, and then has nothing at all."""


async def refresh_depths(
    queue: Queue, metrics: Metrics, channels: Sequence[Channel], *, within_s: float = WITHIN_S
) -> None:
    """Set the gauges. Read when scraped, so that nothing is counted for nobody. Raises Unavailable, after `within_s` at
    the latest; what is known by then is set."""

    async def refresh(channel: Channel) -> None:
        metrics.queue_depth.labels(channel.model, channel.lane).set(await queue.depth(channel))

    try:
        async with asyncio.timeout(within_s):
            await asyncio.gather(*map(refresh, channels))
    except TimeoutError as error:
        raise Unavailable(f"the queue did not tell its depths within {within_s:g} s") from error
