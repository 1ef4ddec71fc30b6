"""What the clocks of jobs bring about: jobs expire, have lived too long, are retained no longer; then all is swept.

Time is the log's own (`EventLog.now`), and whether an event came in time is decided by when the log took it
(`core.job.apply`). So what is said here too early, or twice, by several that run side by side, changes nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct

from forebay.core import crash
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.job import DEADLINE, Job, deletion
from forebay.core.reservation import KEEP_S
from forebay.ports.blobs import BlobStore
from forebay.ports.due import FRONT, DuePlace
from forebay.ports.event_log import EventLog
from forebay.ports.queue import Queue
from forebay.ports.store import ResultStore
from forebay.telemetry.metrics import Metrics

MOST = 500
"""Jobs in one step: few enough for one publish. A full step is followed by the next at once."""

SWEPT_AT_ONCE = 16
"""Jobs whose blobs are deleted at a time."""

AGAIN_S = 10.0
"""After so long without effect the same is said of a job again: its word was lost, or the projector is behind. And so
long a job rests whose blobs could not be deleted."""

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
        self._said_since = -math.inf
        self._said_until = FRONT
        self._swept_until = FRONT
        self._forgotten_until = FRONT
        self._failing: dict[tuple[str, str], float] = {}  # of which jobs the blobs could not be deleted, and when

    async def run(self) -> None:
        """Until cancelled, which leaves nothing half done that the next does not find."""
        async with asyncio.TaskGroup() as tasks:  # so that what is slow to delete holds up no clock
            tasks.create_task(self._repeat(self.say, self._plan.look_every_s), name="timekeeper.say")
            tasks.create_task(self._repeat(self.sweep, self._plan.look_every_s), name="timekeeper.sweep")
            tasks.create_task(self._repeat(self.forget, FORGET_EVERY_S), name="timekeeper.forget")

    async def _repeat(self, step: Callable[[], Awaitable[bool]], every_s: float) -> None:
        while True:
            try:
                pause_s = 0.0 if await step() else every_s * (0.5 + self._random())
            except Unavailable as error:
                log.warning("timekeeper.backend_away", step=step.__name__, code=error.code, error=error.message)
                pause_s = max(self._plan.look_every_s * (0.5 + self._random()), error.retry_after_s)
            await asyncio.sleep(pause_s)

    async def say(self) -> bool:
        """Of jobs that are due: that they are. Whether there may be more. Raises Unavailable."""
        now = await self._events.now()
        self._let_be_said_again()
        due = await self._store.due(now, MOST)
        new = self._unsaid(due)
        behind = not new and len(due) == MOST  # word of all these is under way, or has no effect
        if behind:
            due = await self._store.due(now, MOST, max(self._said_until, _due_place(due[-1])))
            new = self._unsaid(due)
        if new:
            crash.reach("scheduler.before_publish")
            await self._events.publish([_word(job, self._clock()) for job in new])
            crash.reach("scheduler.after_publish")
            self._said.update((_key(job), self._monotonic()) for job in new)
            for job in new:
                self._due.labels(job.model, job.over_as.value).inc()
        if behind and due:
            self._said_until = _due_place(due[-1])
        return len(due) == MOST

    def _let_be_said_again(self) -> None:
        """What was said long ago. All that is due is looked at again, too: jobs may have come in between."""
        long_ago = self._monotonic() - AGAIN_S
        while self._said and next(iter(self._said.values())) <= long_ago:
            del self._said[next(iter(self._said))]
        if self._said_since <= long_ago:
            self._said_since, self._said_until = self._monotonic(), FRONT

    def _unsaid(self, due: Sequence[Job]) -> list[Job]:
        return [job for job in due if _key(job) not in self._said]

    async def sweep(self) -> bool:
        """What belonged to jobs that are deleted: their blobs, and what an embedded log has of them. Only now, when
        nobody can find the jobs any more. Whether there may be more. Raises Unavailable."""
        page = await self._store.unswept(MOST, self._swept_until)
        self._swept_until = _deletion_place(page[-1]) if len(page) == MOST else FRONT
        for few in _parts([job for job in page if not self._failed_lately(job)], SWEPT_AT_ONCE):
            crash.reach("scheduler.before_sweep")
            gone = await self._delete_blobs(few)
            crash.reach("scheduler.blobs_deleted")
            if not gone:  # the blob store may be away
                self._swept_until = _deletion_place(few[-1])
                return False
            await self._queue.forget([_key(job) for job in gone])
            await self._store.swept(gone)
            crash.reach("scheduler.after_sweep")
        return len(page) == MOST

    async def forget(self) -> bool:
        """Tombstones that are old, and with them what has come late to their jobs; reservations that nobody used.
        Whether there may be more. Raises Unavailable."""
        now = await self._events.now()
        if self._forgotten_until == FRONT:
            await self._store.forget_unpublished(now - UNUSED_S)
        page = await self._store.tombstones(now - self._plan.remember_s, MOST, self._forgotten_until)
        self._forgotten_until = _deletion_place(page[-1]) if len(page) == MOST else FRONT
        for few in _parts(page, SWEPT_AT_ONCE):
            gone = await self._delete_blobs(few)
            if not gone:
                self._forgotten_until = _deletion_place(few[-1])
                return False
            await self._queue.forget([_key(job) for job in gone], wholly=True)
            await self._store.forget(gone)
        return len(page) == MOST

    async def _delete_blobs(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of which no blob is left. A job whose blobs cannot be deleted holds up no other, and is logged once."""
        outcomes = await asyncio.gather(
            *(self._blobs.delete_job(job.tenant, job.id) for job in jobs), return_exceptions=True
        )
        gone = []
        for job, failure in zip(jobs, outcomes, strict=True):
            known = self._failing.pop(_key(job), None)
            if failure is None:
                gone.append(job)
                continue
            if not isinstance(failure, Unavailable):
                raise failure
            if known is None:
                log.error("timekeeper.blobs_stay", tenant=job.tenant, job=job.id, error=failure.message)
            self._failing[_key(job)] = self._monotonic()
        return gone

    def _failed_lately(self, job: Job) -> bool:
        return self._failing.get(_key(job), -math.inf) > self._monotonic() - AGAIN_S


def _word(job: Job, at: float) -> JobEvent:
    kind = job.over_as
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


def _due_place(job: Job) -> DuePlace:
    assert job.over_at is not None, "who is due has a time"
    return job.over_at, job.tenant, job.id


def _deletion_place(tombstone: Job) -> DuePlace:
    assert tombstone.deleted_at is not None, "a tombstone is of a deleted job"
    return tombstone.deleted_at, tombstone.tenant, tombstone.id


def _parts(items: Sequence[T], most: int) -> list[Sequence[T]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
