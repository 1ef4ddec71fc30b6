"""Applies the event log to the store: read -> project -> count. The only writer of visible job state."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from forebay.core import crash
from forebay.core.errors import Unavailable
from forebay.core.event import JobEvent, JobRequest
from forebay.core.fact import Fact
from forebay.core.job import Job, JobStatus
from forebay.ports.event_log import START, EventLog, LogBatch
from forebay.ports.store import ResultStore
from forebay.telemetry.metrics import Metrics

READ_LIMIT = 1000
"""Facts in one transaction: large enough that its cost vanishes, small enough that a reader waits some 50 ms at
most."""

READ_WAIT_S = 5.0

REBUILD_SEEN_EVERY_S = 5.0
"""How often a projector that always finds something asks whether a rebuild is done."""

DRAIN_WITHIN_S = 5.0
"""Of a stop: some hundred thousand facts. What is left is applied by another projector, or at the next start."""

log = structlog.get_logger()


class Projector:
    """Follows the sources of the log that fall to it. Several may run side by side: where two follow the same source,
    the store's compare-and-set lets one of them win each batch, and the loser goes on from where the winner left."""

    def __init__(
        self, events: EventLog, store: ResultStore, metrics: Metrics, clock: Callable[[], float] = time.time
    ) -> None:
        self._events = events
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._positions: dict[str, str] = {}  # of the sources that are followed
        self._reached: dict[str, float] = {}  # by source that is behind: up to which time its facts are applied
        self._rebuild_seen_at = time.monotonic()
        self._stopping = asyncio.Event()

    def lag_s(self) -> float:
        """Seconds by which visible state may be behind the log: the age of the newest fact that is applied; 0.0 once a
        read has found nothing more, and before the first one."""
        return max(0.0, self._clock() - min(self._reached.values())) if self._reached else 0.0

    def stop(self) -> None:
        """Apply what the log holds now, then `run()` returns: so an outcome published before is visible after, unless
        that takes longer than DRAIN_WITHIN_S."""
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop()`, which cuts short a wait for more, never a write."""
        wait_s = 0.0
        while not self._stopping.is_set():
            try:
                found = await self._step(wait_s)
                if not found or self._rebuild_unseen_s() >= REBUILD_SEEN_EVERY_S:
                    await self._end_rebuild()
                wait_s = 0.0 if found else READ_WAIT_S  # the end is known before it is waited at
            except Unavailable as error:
                log.warning("projector.backend_away", error=error.message)
                self._positions.clear()
                await self._until_stopping(error.retry_after_s)
        await self._drain()

    async def _drain(self) -> None:
        """To where the log ends now, however fast it grows; a backend that is away, or slow, ends it early and loses
        nothing."""
        deadline = time.monotonic() + DRAIN_WITHIN_S
        try:
            ends = await self._events.ends()
            while await self._step(wait_s=0.0) and not await self._passed(ends):
                if time.monotonic() >= deadline:
                    log.warning("projector.stopped_behind", after_s=DRAIN_WITHIN_S)
                    return
        except Unavailable as error:
            log.warning("projector.backend_away", error=error.message)

    async def _passed(self, ends: Mapping[str, str]) -> bool:
        """Whether the sources that are ours are applied as far as `ends`."""
        beyond = await self._events.behind(ends)  # first: what comes meanwhile must not look like what is left
        left = await self._events.behind(self._positions)
        return all(left.get(source, 0) <= beyond.get(source, 0) for source in self._events.sources())

    async def _until_stopping(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):  # it was waited for long enough
            async with asyncio.timeout(timeout_s):
                await self._stopping.wait()

    async def _read(self, positions: dict[str, str], wait_s: float) -> list[LogBatch]:
        """[] too when a stop cuts the wait short."""
        if wait_s == 0.0:
            return await self._events.read(positions, READ_LIMIT, 0.0)
        reading = asyncio.create_task(self._events.read(positions, READ_LIMIT, wait_s))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, stopping):
                task.cancel()
            await asyncio.wait({reading, stopping})
        return [] if reading.cancelled() else reading.result()

    async def _step(self, wait_s: float) -> bool:
        """Whether there may be more at once."""
        positions = await self._where_we_are()
        batches = await self._read(positions, wait_s)
        self._note_ends(batches)
        if not batches:
            return False
        for batch in batches:
            if batch.facts:
                self._reached.setdefault(batch.source, _at(batch.facts[0]))
        crash.reach("projector.before_project")
        changed = await self._store.project(batches)
        crash.reach("projector.after_project")
        if changed is None:
            log.info("projector.overtaken", sources=[batch.source for batch in batches])
            self._positions.clear()
            return True
        for batch in batches:
            self._positions[batch.source] = batch.end
            if batch.facts:
                self._reached[batch.source] = _at(batch.facts[-1])
        self._metrics.projector_lag.set(self.lag_s())
        self._count(batches, changed)
        return True

    async def _where_we_are(self) -> dict[str, str]:
        """The position of every source that is ours now: asked of the store for those that are new to us."""
        sources = self._events.sources()
        new = [source for source in sources if source not in self._positions]
        if len(new) > 1:
            known = await self._store.positions()
            self._positions.update((source, known.get(source, START)) for source in new)
        elif new:
            self._positions[new[0]] = await self._store.position(new[0])
        if len(self._positions) != len(sources):
            self._positions = {source: self._positions[source] for source in sources}
            self._reached = {source: at for source, at in self._reached.items() if source in self._positions}
        return self._positions

    def _note_ends(self, batches: Sequence[LogBatch]) -> None:
        """What was read had room for every source: those without a batch are at their end."""
        if sum(len(batch.facts) for batch in batches) < READ_LIMIT:
            with_more = {batch.source for batch in batches}
            self._reached = {source: at for source, at in self._reached.items() if source in with_more}
            self._metrics.projector_lag.set(self.lag_s())

    async def _end_rebuild(self) -> None:
        """Open the store for readers again once everything that was visible before the rebuild is.

        Until then go by the store's positions and not by our own, which a rebuild has made void.
        """
        self._rebuild_seen_at = time.monotonic()
        until = await self._store.rebuilding()
        if until is None:
            return
        allowed = await self._events.behind(until)  # first: what comes meanwhile must not look like what is left
        there = await self._store.positions()
        left = await self._events.behind({source: there.get(source, START) for source in until})
        if all(left.get(source, 0) <= allowed.get(source, 0) for source in until):
            await self._store.end_rebuild()
            log.info("projector.rebuilt")
        else:
            self._positions.clear()

    def _rebuild_unseen_s(self) -> float:
        return time.monotonic() - self._rebuild_seen_at

    def _count(self, batches: Sequence[LogBatch], changed: Sequence[Job]) -> None:
        facts = [fact for batch in batches for fact in batch.facts]
        self._metrics.projected_facts.inc(len(facts))
        self._metrics.projector_malformed.inc(sum(batch.malformed for batch in batches))
        finals = 0
        for job in changed:
            if not job.status.final or job.deleted_at is not None:
                continue
            finals += 1
            self._metrics.jobs_finished.labels(job.model, job.status.value).inc()
            if job.status is JobStatus.FAILED and job.error is not None:
                self._metrics.jobs_failed.labels(job.model, job.error.code).inc()
        final_events = sum(isinstance(fact, JobEvent) and fact.kind.final for fact in facts)
        self._metrics.projected_ignored.inc(max(0, final_events - finals))


def _at(fact: Fact) -> float:
    return fact.accepted_at if isinstance(fact, JobRequest) else fact.at
