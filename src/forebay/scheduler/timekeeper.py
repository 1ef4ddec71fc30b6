"""What the clocks of jobs bring about: jobs expire, have lived too long, are retained no longer; then all is swept.

Time is the log's own (`EventLog.now`), and whether an event came in time is decided by when the log took it
(`core.job.apply`). So what is said here too early, or twice, by several that run side by side, changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct

from forebay.core import crash
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.job import DEADLINE, Job, deletion
from forebay.core.reservation import KEEP_S
from forebay.ports.blobs import BlobStore
from forebay.ports.event_log import EventLog
from forebay.ports.queue import Queue
from forebay.ports.store import ResultStore
from forebay.telemetry.metrics import Metrics

MOST = 500
"""Jobs in one step: few enough for one publish, and some thousand a second."""

SWEPT_AT_ONCE = 16
"""Jobs whose blobs are deleted at a time."""

AGAIN_S = 10.0
"""After so long without effect the same is said of a job again: its word was lost, or the projector is behind."""

FORGET_EVERY_S = 600.0
UNUSED_S = 2 * KEEP_S
"""So long a reservation stands that nobody has used: its age is by the clock of whoever made it."""

log = structlog.get_logger()
T = TypeVar("T")


class TimekeeperPlan(Struct, frozen=True, kw_only=True):
    """`look_every_s`: how long a job may be over before anybody says so; several schedulers look at different times.
    `remember_s`: so long it is known of a deleted job that there was one."""

    look_every_s: float = 1.0
    remember_s: float = 7 * 86_400.0


class Timekeeper:
    def __init__(
        self,
        plan: TimekeeperPlan,
        *,
        events: EventLog,
        store: ResultStore,
        blobs: BlobStore,
        queue: Queue,
        metrics: Metrics,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._events = events
        self._store = store
        self._blobs = blobs
        self._queue = queue
        self._due = metrics.jobs_due
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._said: dict[tuple[str, str], float] = {}  # of which jobs something was said, and when
        self._forget_at = 0.0

    async def run(self) -> None:
        """Until cancelled, which leaves nothing half done that the next does not find."""
        while True:
            pause_s = self._plan.look_every_s * (0.5 + self._random())
            try:
                more = await self.turn()
            except Unavailable as error:
                log.warning("timekeeper.backend_away", code=error.code, error=error.message)
                pause_s = max(pause_s, error.retry_after_s)
            else:
                pause_s = 0.0 if more else pause_s
            await asyncio.sleep(pause_s)

    async def turn(self) -> bool:
        """Do what is due now; whether there may be more. Raises Unavailable."""
        now = await self._events.now()
        said = await self._say(now)
        swept = await self._sweep()
        await self._forget(now)
        return said or swept

    async def _say(self, now: float) -> bool:
        self._said = {key: at for key, at in self._said.items() if self._monotonic() - at < AGAIN_S}
        due = await self._store.due(now, MOST)
        new = [job for job in due if _key(job) not in self._said]
        if not new:
            return False
        crash.reach("scheduler.before_publish")
        await self._events.publish([_word(job, self._clock()) for job in new])
        crash.reach("scheduler.after_publish")
        self._said.update((_key(job), self._monotonic()) for job in new)
        for job in new:
            self._due.labels(job.model, _kind(job).value).inc()
        return len(due) == MOST

    async def _sweep(self) -> bool:
        """What belonged to jobs that are deleted: their blobs, and what an embedded log has of them. Only now, when
        nobody can find the jobs any more."""
        deleted = await self._store.unswept(MOST)
        for few in _parts(deleted, SWEPT_AT_ONCE):
            crash.reach("scheduler.before_sweep")
            await asyncio.gather(*(self._blobs.delete_job(job.tenant, job.id) for job in few))
            crash.reach("scheduler.blobs_deleted")
            await self._queue.forget([_key(job) for job in few])
            await self._store.swept(few)
            crash.reach("scheduler.after_sweep")
        return len(deleted) == MOST

    async def _forget(self, now: float) -> None:
        """Tombstones that are old, and with them what has come late to their jobs; reservations that nobody used."""
        if self._monotonic() < self._forget_at:
            return
        await self._store.forget_unpublished(now - UNUSED_S)
        while old := await self._store.tombstones(now - self._plan.remember_s, MOST):
            for few in _parts(old, SWEPT_AT_ONCE):
                await asyncio.gather(*(self._blobs.delete_job(job.tenant, job.id) for job in few))
                await self._queue.forget([_key(job) for job in few], wholly=True)
                await self._store.forget(few)
        self._forget_at = self._monotonic() + FORGET_EVERY_S


def _kind(job: Job) -> EventKind:
    if job.status.final:
        return EventKind.DELETED
    return EventKind.EXPIRED if job.over_at == job.expires_at else EventKind.FAILED


def _word(job: Job, at: float) -> JobEvent:
    kind = _kind(job)
    if kind is EventKind.DELETED:
        return deletion(job, at, job.over_at)
    return JobEvent(
        tenant=job.tenant,
        job_id=job.id,
        kind=kind,
        at=at,
        attempt=job.attempts if kind is EventKind.FAILED else 0,
        error=DEADLINE if kind is EventKind.FAILED else None,
        not_before=job.over_at,
    )


def _key(job: Job) -> tuple[str, str]:
    return job.tenant, job.id


def _parts(items: Sequence[T], most: int) -> list[Sequence[T]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
