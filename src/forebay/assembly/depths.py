"""How much waits in each lane and in the outbox, and for how long, for whoever scrapes metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from forebay.core.errors import Unavailable
from forebay.core.message import Channel
from forebay.ports.queue import Queue
from forebay.ports.store import ResultStore
from forebay.telemetry.metrics import Metrics

WITHIN_S = 3.0
"""Prometheus gives up after 10 s, and then has nothing at all."""


async def refresh_depths(
    queue: Queue,
    store: ResultStore | None,
    metrics: Metrics,
    channels: Sequence[Channel],
    *,
    clock: Callable[[], float] = time.time,
    within_s: float = WITHIN_S,
) -> None:
    """Set the gauges; those of ages where the process has a store. Read when scraped, so that nothing is counted for
    nobody. Raises Unavailable, after `within_s` at the latest; what is known by then is set."""

    async def refresh(channel: Channel) -> None:
        metrics.queue_depth.labels(channel.model, channel.lane).set(await queue.depth(channel))

    async def refresh_ages(store: ResultStore) -> None:
        counts = await store.queues()
        metrics.oldest_age.clear()
        for channel in channels:
            metrics.oldest_age.labels(channel.model, channel.lane).set(0.0)
        for count in counts:
            age_s = 0.0 if count.oldest_at is None else max(0.0, clock() - count.oldest_at)
            metrics.oldest_age.labels(count.model, count.lane).set(age_s)

    async def refresh_webhooks(store: ResultStore) -> None:
        count = await store.outbox()
        metrics.webhooks_pending.set(count.pending)
        metrics.webhooks_due_age.set(0.0 if count.due_at is None else max(0.0, clock() - count.due_at))

    try:
        async with asyncio.timeout(within_s):
            of_store = [] if store is None else [refresh_ages(store), refresh_webhooks(store)]
            await asyncio.gather(*map(refresh, channels), *of_store)
    except TimeoutError as error:
        raise Unavailable(f"the queue did not tell its depths within {within_s:g} s") from error
