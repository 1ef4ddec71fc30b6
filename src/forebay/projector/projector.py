"""Applies the event log to the store: read -> project -> count. The only writer of visible job state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from forebay.core import crash
from forebay.core.errors import Unavailable
from forebay.core.event import JobEvent, JobRequest
from forebay.core.job import Job, JobStatus
from forebay.ports.event_log import EventLog, LogBatch
from forebay.ports.store import ResultStore
from forebay.telemetry.metrics import Metrics

READ_LIMIT = 1000
"""Facts in one transaction: large enough that its cost vanishes, small enough that a reader waits some 50 ms at
most."""

READ_WAIT_S = 5.0

log = structlog.get_logger()


class Projector:
    """Follows every source of the log. Several may run side by side: the store's compare-and-set lets one of them win
    each batch, and the loser goes on from where the winner left."""

    def __init__(
        self, events: EventLog, store: ResultStore, metrics: Metrics, clock: Callable[[], float] = time.time
    ) -> None:
        self._events = events
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._reached: dict[str, float] = {}  # by source that is behind: up to which time its facts are applied
        self._stopping = asyncio.Event()

    def lag_s(self) -> float:
        """Seconds by which visible state may be behind the log: the age of the newest fact that is applied; 0.0 once a
        read has found nothing more, and before the first one."""
        return max(0.0, self._clock() - min(self._reached.values())) if self._reached else 0.0

    def stop(self) -> None:
        """Apply what the log holds now, then `run()` returns: so an outcome published before is visible after."""
        self._stopping.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            followers = {tasks.create_task(self._follow(source)) for source in self._events.sources()}
            await self._stopping.wait()
            for follower in followers:
                follower.cancel()
            await asyncio.wait(followers)
        for source in self._events.sources():
            await self._drain(source)

    async def _drain(self, source: str) -> None:
        """To the end of the log as it is; an absent backend ends it early and loses nothing.

        A batch that was being written when its follower was cancelled may be written still, and overtakes this."""
        try:
            reached, position = None, await self._store.position(source)
            while position != reached:
                reached = position
                position = await self._step(source, position, wait_s=0.0) or await self._store.position(source)
        except Unavailable as error:
            log.warning("projector.backend_away", source=source, error=error.message)

    async def _follow(self, source: str) -> None:
        while True:
            try:
                position: str | None = await self._store.position(source)
                wait_s = 0.0
                while position is not None:
                    reached, position = position, await self._step(source, position, wait_s)
                    wait_s = READ_WAIT_S if position == reached else 0.0  # the end is known before it is waited at
                log.info("projector.overtaken", source=source)
            except Unavailable as error:
                log.warning("projector.backend_away", source=source, error=error.message)
                await asyncio.sleep(error.retry_after_s)

    async def _step(self, source: str, position: str, wait_s: float) -> str | None:
        """The next position, or None when another projector has advanced this source."""
        batch = await self._events.read(source, position, READ_LIMIT, wait_s)
        if batch.end == position:
            self._reached.pop(source, None)
            self._metrics.projector_lag.set(self.lag_s())
            return position
        if batch.facts:
            self._reached.setdefault(source, _at(batch.facts[0]))
        crash.reach("projector.before_project")
        changed = await self._store.project(batch)
        crash.reach("projector.after_project")
        if changed is None:
            return None
        if batch.facts:
            self._reached[source] = _at(batch.facts[-1])
        self._metrics.projector_lag.set(self.lag_s())
        self._count(batch, changed)
        return batch.end

    def _count(self, batch: LogBatch, changed: Sequence[Job]) -> None:
        self._metrics.projected_facts.inc(len(batch.facts))
        self._metrics.projector_malformed.inc(batch.malformed)
        finals = 0
        for job in changed:
            if not job.status.final:
                continue
            finals += 1
            self._metrics.jobs_finished.labels(job.model, job.status.value).inc()
            if job.status is JobStatus.FAILED and job.error is not None:
                self._metrics.jobs_failed.labels(job.model, job.error.code).inc()
        final_events = sum(isinstance(fact, JobEvent) and fact.kind.final for fact in batch.facts)
        self._metrics.projected_ignored.inc(max(0, final_events - finals))


def _at(fact: JobRequest | JobEvent) -> float:
    return fact.at if isinstance(fact, JobEvent) else fact.accepted_at
