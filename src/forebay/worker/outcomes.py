"""What becomes of a job: publish -> ack, or back into the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from forebay.core import crash
from forebay.core.errors import InvalidRequest, PayloadTooLarge, Unavailable
from forebay.core.event import EventKind, JobError, JobEvent, JobMetrics
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.blobs import BlobStore
from forebay.ports.event_log import EventLog
from forebay.telemetry.metrics import Metrics
from forebay.worker import frames
from forebay.worker.hand import JobInHand
from forebay.worker.intake import Intake
from forebay.worker.vitals import Vitals

BACKEND_RETRY_S = 1.0

AWAY_S = 3.0
"""A backend that fails for so long is taken to stay away, where there is no time to wait for it: longer than it takes
to choose another leader of a partition."""

T = TypeVar("T")

log = structlog.get_logger()


class WorkerPlan(Struct, frozen=True, kw_only=True):
    """The plain values a worker needs. `inline_limit_bytes`: larger outputs go to the blob store."""

    worker_id: str
    inline_limit_bytes: int
    stop_grace_s: float


class Outcomes:
    """Publishes what was found out about jobs and lets go of them. Every method waits until the backends are there."""

    def __init__(
        self,
        spec: ModelSpec,
        plan: WorkerPlan,
        *,
        intake: Intake,
        events: EventLog,
        blobs: BlobStore,
        metrics: Metrics,
        vitals: Vitals,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._intake = intake
        self._events = events
        self._blobs = blobs
        self._metrics = metrics
        self._vitals = vitals
        self._clock = clock
        self._random = random
        self._failing: dict[object, float] = {}  # calls that a backend has failed, and when each began

    async def tell_started(self, batch: Sequence[JobInHand], at: float) -> None:
        """That an attempt of each, which the queue has counted, began `at`."""
        started = [self.event(job, EventKind.STARTED, job.attempt, at) for job in batch]
        await self.until_there(lambda: self._events.publish(started))

    async def settle(self, batch: list[JobInHand], done: frames.Done, begun_at: float, size: int) -> None:
        """Publish what the runner answered to the attempt begun at `begun_at`, then let go of the jobs. `size`: of the
        batch that ran, canceled jobs included."""
        self._metrics.decode_seconds.labels(self._spec.name).observe(done.decode_s)
        self._metrics.predict_seconds.labels(self._spec.name).observe(done.predict_s)
        now = self._clock()
        succeeded: list[JobInHand] = []
        events: list[JobEvent] = []
        failed: list[tuple[JobInHand, JobError]] = []
        for job, outcome in zip(batch, done.outcomes, strict=True):
            if outcome.error is not None:
                failed.append((job, outcome.error))
                continue
            try:
                output = await self._output(job, outcome)
            except InvalidRequest as invalid:  # a foreign record's id makes no name for a blob; its neighbours' do
                text = f"the output cannot be stored: {invalid.message}"
                failed.append((job, JobError(code="result_not_stored", message=text)))
                continue
            metrics = JobMetrics(
                queue_s=round(max(0.0, begun_at - job.request.accepted_at), 6),
                predict_s=round(done.predict_s, 6),
                batch_size=size,
            )
            succeeded.append(job)
            events.append(self.event(job, EventKind.SUCCEEDED, job.attempt, now, output=output, metrics=metrics))
        if succeeded:
            await self._publish_results(succeeded, events)
        if failed:
            await self.end_or_retry(failed)
        log.info("batch.finished", model=self._spec.name, jobs=len(batch), failed=len(failed), predict_s=done.predict_s)

    async def _publish_results(self, jobs: list[JobInHand], events: list[JobEvent]) -> None:
        try:
            await self._publish(events)
        except PayloadTooLarge as error:
            if len(jobs) > 1:  # whose it is shows when each goes by itself; repeating the others is harmless
                for job, event in zip(jobs, events, strict=True):
                    await self._publish_results([job], [event])
                return
            text = f"the output is larger than the {error.limit_bytes} bytes that the log takes"
            await self.fail(jobs[0], "result_too_large", text, jobs[0].attempt)
            return
        await self._ack(jobs)  # last: a crash before here runs the batch again, and the first outcome stays

    async def _output(self, job: JobInHand, outcome: frames.Outcome) -> Payload:
        if len(outcome.data) <= self._plan.inline_limit_bytes:
            return Payload(media_type=outcome.media_type, data=outcome.data)
        put = self._blobs.put
        blob = await self.until_there(lambda: put(job.request.tenant, job.request.job_id, outcome.data))
        return Payload(media_type=outcome.media_type, blob=blob)

    async def end_or_retry(self, failed: Sequence[tuple[JobInHand, JobError]]) -> None:
        """A retryable error sends the job back with a delay until its attempts are used up; any other ends it."""
        for job, error in failed:
            delay_s = self._spec.retry.delay_s(job.attempt, self._random()) if error.retryable else None
            if delay_s is None:
                await self.end(job, EventKind.FAILED, error, job.attempt)
                continue
            self._metrics.attempts_retried.labels(self._spec.name, error.code).inc()
            now, delay_s = self._clock(), self._intake.delay_of(job.handle, delay_s)
            again = self.event(job, EventKind.QUEUED, job.attempt, now, error=error)
            await self._publish([replace(again, due_at=now + delay_s)])
            await self.give_back([job], delay_s)

    async def let_go(self, jobs: Sequence[JobInHand]) -> None:
        """Of jobs whose final state others have published: nothing is said, and they never come back."""
        log.info("jobs.canceled", model=self._spec.name, jobs=len(jobs))
        await self._ack(jobs)

    async def fail(self, job: JobInHand, code: str, message: str, attempt: int) -> None:
        """End it as failed for a reason of ours that no retry would mend."""
        await self.end(job, EventKind.FAILED, JobError(code=code, message=message), attempt)

    async def end(
        self, job: JobInHand, kind: EventKind, error: JobError | None, attempt: int, *, not_before: float | None = None
    ) -> None:
        """Publish this final state, then let go of the job: for good, or as a dead letter if it failed."""
        await self._publish([self.event(job, kind, attempt, self._clock(), error=error, not_before=not_before)])
        if error is None:
            await self._ack([job])
            return
        log.info("job.failed", job=job.request.job_id, model=self._spec.name, code=error.code, attempt=attempt)
        crash.reach("worker.before_ack")
        await self.until_there(lambda: self._intake.reject(job.handle, error))
        crash.reach("worker.after_ack")

    def event(
        self,
        job: JobInHand,
        kind: EventKind,
        attempt: int,
        at: float,
        *,
        output: Payload | None = None,
        metrics: JobMetrics | None = None,
        error: JobError | None = None,
        not_before: float | None = None,
    ) -> JobEvent:
        """What this worker says of the job."""
        return JobEvent(
            tenant=job.request.tenant,
            job_id=job.request.job_id,
            kind=kind,
            at=at,
            attempt=attempt,
            worker=self._plan.worker_id,
            model_version=self._spec.version,
            output=output,
            metrics=metrics,
            error=error,
            not_before=not_before,
        )

    async def _publish(self, events: Sequence[JobEvent]) -> None:
        crash.reach("worker.before_publish")
        await self.until_there(lambda: self._events.publish(events))
        crash.reach("worker.after_publish")

    async def _ack(self, jobs: Sequence[JobInHand]) -> None:
        crash.reach("worker.before_ack")
        await self.until_there(lambda: self._intake.ack([job.handle for job in jobs]))
        crash.reach("worker.after_ack")

    async def give_back(self, jobs: Sequence[JobInHand], delay_s: float = 0.0) -> None:
        """Unrun, or to be run again: to whoever receives them next."""
        await self.until_there(lambda: self._intake.nack([job.handle for job in jobs], delay_s))

    @property
    def in_vain(self) -> int:
        """How many calls wait for a backend that seems to stay away."""
        now = asyncio.get_running_loop().time()
        return sum(now - began >= AWAY_S for began in self._failing.values())

    async def until_there(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat until the backend is there: what is in hand has cost a run of the model, waiting costs less."""
        this, began = object(), asyncio.get_running_loop().time()
        try:
            while True:
                try:
                    return await call()
                except Unavailable as error:
                    log.warning("worker.backend_away", model=self._spec.name, error=error.message)
                    self._failing[this] = began
                    self._vitals.backend_failed()
                    await asyncio.sleep(BACKEND_RETRY_S)
        finally:
            self._failing.pop(this, None)
