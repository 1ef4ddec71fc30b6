"""One model's worker: receive -> batch -> predict -> publish -> ack.

What happens to a batch that gives no outcomes (it raised, its runner died or overran its time): it runs again in
halves, each alone in a runner, until the guilty input is by itself. So a neighbour of a bad input succeeds, whatever
the input did. Every hand-over to a runner is one attempt, recorded before the model runs. An input fails for the
deaths it causes only when it was alone: at once if the model raised, after `retry.max_attempts` attempts if the
runner died or hung.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from itertools import compress

import structlog
from msgspec import structs

from forebay.core import wire
from forebay.core.batching import Batcher, halves
from forebay.core.canceled import CanceledJobs
from forebay.core.errors import BlobDamaged, InvalidRequest, Revoked, Unavailable
from forebay.core.event import EventKind, JobError, JobRequest
from forebay.core.job import DEADLINE, MAX_LIFE_S
from forebay.core.lanes import Lane
from forebay.core.message import ReceivedMessage
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.blobs import BlobStore
from forebay.ports.event_log import EventLog
from forebay.telemetry.metrics import Metrics
from forebay.worker import frames
from forebay.worker.hand import JobInHand
from forebay.worker.intake import Intake
from forebay.worker.interim import Interim, Talk
from forebay.worker.meanwhile import Meanwhile
from forebay.worker.outcomes import BACKEND_RETRY_S, Outcomes, WorkerPlan
from forebay.worker.runner import PIPELINE_DEPTH, BatchFailed
from forebay.worker.runners import Runners, Seat
from forebay.worker.solitude import Solitude
from forebay.worker.vitals import Timed
from forebay.worker.waiting import wait_for

RECEIVE_WAIT_S = 5.0

LOOK_EVERY_S = 0.25
"""At a stop, whether what is left only waits for a backend that stays away."""

LAST_WORD_S = 1.0
"""After the grace of a stop, with a backend that may be away: long enough to hand jobs back to one that is not."""

log = structlog.get_logger()


class Worker:
    """Serves one version of one model. `run()` returns after `stop()`, when everything in hand is published or given
    back.

    `clock` is wall time, for what is shown; waits use the loop's monotonic clock, the clocks of jobs the log's time.
    """

    def __init__(
        self,
        spec: ModelSpec,
        plan: WorkerPlan,
        *,
        intake: Intake,
        events: EventLog,
        blobs: BlobStore,
        runners: Runners,
        metrics: Metrics,
        canceled: CanceledJobs,
        solitude: Solitude | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._outcomes = Outcomes(
            spec,
            plan,
            intake=intake,
            events=events,
            blobs=blobs,
            metrics=metrics,
            vitals=runners.vitals,
            clock=clock,
            random=random,
        )
        self._vitals = runners.vitals
        self._interim = Interim(spec.name, self._outcomes, events, metrics, clock)
        self._intake = intake
        self._events = events
        self._blobs = blobs
        self._runners = runners
        self._metrics = metrics
        self._canceled = canceled
        self._clock = clock
        self._solitude = solitude or Solitude()
        self._batcher: Batcher[JobInHand] = Batcher(spec.batching)
        self._running: set[asyncio.Task[None]] = set()
        self._predicting = 0
        self._max_in_hand = spec.replicas * spec.batching.max_batch_size * (PIPELINE_DEPTH + 1)
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take nothing more; `run()` returns within the plan's grace."""
        self._stopping.set()
        self._changed.set()

    async def run(self) -> None:
        self._solitude.watch(self._changed)
        try:
            with self._canceled.told(lambda _, job_id: self._runners.cancel(job_id)):
                await self._work()
        finally:
            self._solitude.give_up(self)
            self._solitude.unwatch(self._changed)
            await self._intake.close()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            keeper = tasks.create_task(self._runners.run(self._changed), name="runners")
            receiver = tasks.create_task(self._receive(), name="receive")
            teller = tasks.create_task(self._interim.run(), name="interim")
            await self._dispatch(tasks)
            self._solitude.give_up(self)
            # Stop receiving first, give back what no runner has, let runners finish what they have, and only then
            # end the runners: in any other order a running batch would be lost and run again elsewhere.
            receiver.cancel()
            await asyncio.wait({receiver})
            self._running.add(tasks.create_task(self._outcomes.give_back(self._batcher.drain()), name="give back"))
            await self._finish()
            self._runners.stop()
            await keeper
            await self._cut_off()
            teller.cancel()

    async def _finish(self) -> None:
        """Until what is in hand is over, for the grace of a stop at most; less where all of it has run and waits for a
        backend that stays away, which may be away for longer than anybody waits for us."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._plan.stop_grace_s
        while self._running and (left_s := deadline - loop.time()) > 0:
            if not self._predicting and self._outcomes.in_vain >= len(self._running):
                log.warning("worker.stopped_without_backend", model=self._spec.name, jobs=self._intake.in_hand)
                return
            await asyncio.wait(self._running, timeout=min(left_s, LOOK_EVERY_S))
            self._running -= {task for task in self._running if task.done()}

    async def _cut_off(self) -> None:
        """End what waits for a backend that is away. Its jobs are not acknowledged, so they run again; batches that
        ended with their runner first get a moment for their last word."""
        left = {task for task in self._running if not task.done()}
        if left:
            _, left = await asyncio.wait(left, timeout=LAST_WORD_S)
        for task in left:
            task.cancel()

    # -- receive ---------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        await self._runners.ready.wait()
        while not self._stopping.is_set():
            room = self._max_in_hand - self._intake.in_hand
            if room <= 0:
                self._intake.released.clear()
                await self._intake.released.wait()
                continue
            try:
                received = await self._intake.receive(room, RECEIVE_WAIT_S)
                for lane, message in received:
                    await self._take_in(lane, message)
            except Unavailable as error:
                log.warning("worker.backend_away", model=self._spec.name, error=error.message)
                self._vitals.backend_failed()
                await wait_for(self._stopping, error.retry_after_s)

    async def _take_in(self, lane: Lane, received: ReceivedMessage) -> None:
        """Into the batcher, unless the job is over before it begins."""
        try:
            request = wire.decode_request(received.message)
        except InvalidRequest as error:
            request = _unreadable(received, self._clock())
            job = JobInHand(lane=lane, received=received, request=request, attempt=received.attempt)
            await self._outcomes.fail(job, "malformed_request", error.message, attempt=0)
            return
        job = JobInHand(lane=lane, received=received, request=request, attempt=received.attempt + 1)
        if self._is_canceled(job):
            await self._outcomes.let_go([job])
        elif received.interruptions >= self._spec.retry.max_attempts:
            text = f"the worker died in {received.interruptions} of its {received.attempt} attempts"
            await self._outcomes.fail(job, "worker_lost", text, received.attempt)
        elif await self._is_late(job):
            await self._end_late(job)
        elif request.version not in ("", self._spec.version):
            text = f"version {request.version} is not served; version {self._spec.version} is"
            await self._outcomes.fail(job, "version_not_served", text, received.attempt)
        elif received.interruptions:  # it may have killed a worker: no company
            self._batcher.set_apart([job], alone=True)
        else:
            self._batcher.add(job, asyncio.get_running_loop().time())
        self._changed.set()

    def _is_canceled(self, job: JobInHand) -> bool:
        return (job.request.tenant, job.request.job_id) in self._canceled

    def _until(self, job: JobInHand) -> tuple[float, EventKind]:
        """When it is too late to begin, by the log's time, and what the job is then. `started` beats expiry: only what
        was never begun can expire."""
        request = job.request
        logged_at = job.received.logged_at or request.accepted_at
        over = (logged_at + (MAX_LIFE_S if request.max_life_s is None else request.max_life_s), EventKind.FAILED)
        within_s = request.start_within_s if request.start_within_s is not None else self._spec.limits.start_within_s
        return over if within_s is None or job.attempt > 1 else min(over, (logged_at + within_s, EventKind.EXPIRED))

    async def _is_late(self, job: JobInHand) -> bool:
        """The log, whose word is the one that counts, is asked for the time only where our clock says so; what is not
        known to be late is run."""
        until, _ = self._until(job)
        if self._clock() < until:
            return False
        try:
            return await self._events.now() >= until
        except Unavailable as error:
            log.warning("worker.backend_away", model=self._spec.name, error=error.message)
            return False

    async def _end_late(self, job: JobInHand) -> None:
        until, kind = self._until(job)
        if kind is EventKind.EXPIRED:
            # A limit that the model got after the request was sent is in no row: should the log, whose brokers' clocks
            # differ, find this word too early, nobody would say it again.
            said_in_request = job.request.start_within_s is not None
            await self._outcomes.end(job, kind, None, 0, not_before=until if said_in_request else None)
        else:
            await self._outcomes.end(job, kind, DEADLINE, job.attempt - 1, not_before=until)

    # -- batch -----------------------------------------------------------------------------------------------------

    async def _dispatch(self, tasks: asyncio.TaskGroup) -> None:
        """Hand a batch to a runner whenever both are there; returns at `stop()`."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            self._changed.clear()
            due = self._batcher.due_at()
            wait_s = None if due is None else max(0.0, due - loop.time())
            if wait_s == 0.0:
                seat = self._seat()
                if seat is not None:
                    running = tasks.create_task(self._run_batch(seat, self._batcher.take(loop.time())), name="batch")
                    self._running.add(running)
                    running.add_done_callback(self._ended)
                    continue
                wait_s = None  # until a seat is free
            await wait_for(self._changed, wait_s)

    def _ended(self, batch: asyncio.Task[None]) -> None:
        """Only now, with its outcomes published and acknowledged, may one start that wants to be alone: should it kill
        the process, none of these is taken for cut off."""
        self._running.discard(batch)
        self._solitude.leave()

    def _seat(self) -> Seat | None:
        """A seat for the batch that leaves next, if it may start beside what else runs in this process."""
        pipelined, apart = self._batcher.full, self._batcher.apart
        if not self._runners.can_seat(pipelined=pipelined, apart=apart):
            self._solitude.give_up(self)
            return None
        if not self._solitude.enter(self, alone=self._batcher.alone):
            return None
        seat = self._runners.seat(pipelined=pipelined, apart=apart)
        assert seat is not None
        return seat

    # -- predict ---------------------------------------------------------------------------------------------------

    async def _run_batch(self, seat: Seat, batch: list[JobInHand]) -> None:
        with self._vitals.batch() as timed:
            await self._run_timed(seat, batch, timed)

    async def _run_timed(self, seat: Seat, batch: list[JobInHand], timed: Timed) -> None:
        talk = self._interim.talk()
        try:
            batch, items = await self._load_inputs(batch)
            done, begun_at = await self._predict(seat, batch, items, talk) if batch else (None, 0.0)
        except Revoked:  # nothing has run, and some of it is another worker's now
            seat.leave()
            await self._outcomes.give_back(self._still_held(batch))
        except Unavailable as error:  # nothing has run: the input could not be read, or the attempt not counted
            seat.leave()
            log.warning("worker.backend_away", model=self._spec.name, error=error.message)
            self._vitals.backend_failed()
            await self._outcomes.give_back(batch, delay_s=BACKEND_RETRY_S)
        except BatchFailed as failure:
            seat.leave()
            await self._interim.finish(talk)
            await self._after_failure(batch, failure, apart=seat.apart)
        except Exception:  # a fault of ours that one job may have brought on: it must not take the others with it
            seat.leave()
            log.exception("batch.crashed", model=self._spec.name, jobs=len(batch))
            await self._interim.finish(talk)
            fault = BatchFailed(JobError(code="internal", message="the service failed on it"), lost_runner=False)
            await self._after_failure(batch, fault, apart=seat.apart)
        else:
            seat.leave()
            if done is not None:
                timed.predicted(job.lane for job in batch)
            await self._interim.finish(talk)
            if done is not None:
                await self._settle(batch, done, begun_at)

    async def _load_inputs(self, batch: list[JobInHand]) -> tuple[list[JobInHand], list[frames.Item]]:
        """The jobs that may still start and whose input is there, and what a runner gets of each; the others end
        here, or are another worker's by now."""
        batch = await self._wanted(self._still_held(batch))
        kept: list[JobInHand] = []
        late: list[JobInHand] = []
        lost: list[JobInHand] = []
        items: list[frames.Item] = []
        for job in batch:
            if await self._is_late(job):
                late.append(job)
                continue
            given = job.request.input
            try:
                data = await self._blobs.get(given.blob) if given.blob is not None else given.data or b""
            except (BlobDamaged, InvalidRequest) as error:  # InvalidRequest: a foreign record's reference is no name
                log.error("input.lost", job=job.request.job_id, model=self._spec.name, error=error.message)
                lost.append(job)
                continue
            kept.append(job)
            parameters = wire.canonical_json(job.request.parameters) if job.request.parameters else b""
            items.append(frames.Item(job.request.job_id, job.attempt, given.media_type, data, parameters))
        for job in late:
            await self._end_late(job)
        for job in lost:
            await self._outcomes.fail(job, "input_lost", "the stored input is missing or damaged", job.attempt - 1)
        return kept, items

    def _still_held(self, batch: list[JobInHand]) -> list[JobInHand]:
        """Those that are in our hands; the rest is let go of without a word."""
        held = [job for job in batch if self._intake.holds(job.handle)]
        if len(held) < len(batch):
            log.info("jobs.revoked", model=self._spec.name, jobs=len(batch) - len(held))
            self._intake.drop([job.handle for job in batch if not self._intake.holds(job.handle)])
        return held

    async def _predict(
        self, seat: Seat, batch: list[JobInHand], items: list[frames.Item], talk: Talk
    ) -> tuple[frames.Done, float]:
        """The outcomes, and when the attempt began. A batch has the time of its most impatient job; should that cut
        short what its neighbours may have, they run again without it."""
        limit_s = self._spec.limits.run_timeout_s
        # The API takes no more than the model's own limit; a record of another producer may say anything.
        timeout_s = min([limit_s, *(job.request.run_timeout_s or limit_s for job in batch)])
        self._metrics.batch_size.labels(self._spec.name).observe(len(batch))
        begun_at = self._clock()
        async with Meanwhile() as meanwhile:
            self._predicting += 1
            try:
                done = await seat.runner.predict(
                    items,
                    lambda: self._begin(batch, begun_at, meanwhile, talk),
                    timeout_s,
                    lambda said: talk.hear(batch, said),
                )
            finally:
                self._predicting -= 1
        return done, begun_at

    async def _begin(self, batch: list[JobInHand], now: float, meanwhile: Meanwhile, talk: Talk) -> None:
        """Put on record that an attempt of each is about to run, before any of it does, and tell of it while it runs.

        Never the other way round: what the log calls started and the queue has not counted may still expire, which
        nobody would believe, and it would be running for ever.
        """
        for job in batch:
            if self._is_canceled(job):  # while its input was loaded, when no runner knew of it
                self._runners.cancel(job.request.job_id)
        await self._intake.begin([job.handle for job in batch])
        meanwhile.do(self._tell_started(batch, now, talk))
        to_start = self._metrics.time_to_start.labels(self._spec.name)
        for job in batch:
            to_start.observe(max(0.0, now - job.request.accepted_at))

    async def _tell_started(self, batch: list[JobInHand], now: float, talk: Talk) -> None:
        await self._outcomes.tell_started(batch, now)
        talk.begun()

    async def _wanted(self, batch: list[JobInHand]) -> list[JobInHand]:
        """Without what was canceled, which is let go of: its final state is in the log."""
        canceled = [self._is_canceled(job) for job in batch]
        if not any(canceled):
            return batch
        await self._outcomes.let_go(list(compress(batch, canceled)))
        return [job for job, out in zip(batch, canceled, strict=True) if not out]

    async def _settle(self, batch: list[JobInHand], done: frames.Done, begun_at: float) -> None:
        """What became of each job that is still wanted."""
        outcomes = {job.receipt: outcome for job, outcome in zip(batch, done.outcomes, strict=True)}
        size, batch = len(batch), await self._wanted(batch)
        done = structs.replace(done, outcomes=[outcomes[job.receipt] for job in batch])
        if batch:
            await self._outcomes.settle(batch, done, begun_at, size)

    async def _after_failure(self, batch: list[JobInHand], failure: BatchFailed, *, apart: bool) -> None:
        """Decide what each job of a batch without outcomes does next."""
        batch = await self._wanted(batch)
        if not batch:
            return
        if not failure.begun:
            self._back_to_batcher(batch)
            return
        if failure.untouched:
            # The log calls it started, so the attempt counts though nothing has run of it: see `_begin`.
            await self._outcomes.give_back(batch)
            return
        self._metrics.attempts_failed.labels(self._spec.name, failure.code).inc(len(batch))
        log.warning("batch.failed", model=self._spec.name, jobs=len(batch), code=failure.code, reason=failure.message)
        error = JobError(code=failure.code, message=failure.message, retryable=failure.retryable)
        if self._stopping.is_set():
            await self._outcomes.give_back(batch)
        elif failure.retryable:
            await self._outcomes.end_or_retry([(job, error) for job in batch])
        elif len(batch) > 1:
            for part in halves(batch):
                self._set_apart(part)
        elif failure.shared and not apart:
            self._set_apart(batch)  # the batch beside it may be the guilty one
        elif failure.lost_runner and batch[0].attempt < self._spec.retry.max_attempts:
            self._set_apart(batch)
        else:
            await self._outcomes.end(batch[0], EventKind.FAILED, error, batch[0].attempt)

    def _set_apart(self, part: list[JobInHand]) -> None:
        again = [structs.replace(job, attempt=job.attempt + 1) for job in part]
        self._batcher.set_apart(again, alone=any(job.received.interruptions for job in again))
        self._changed.set()

    def _back_to_batcher(self, batch: list[JobInHand]) -> None:
        now = asyncio.get_running_loop().time()
        for job in batch:
            self._batcher.add(job, now)
        self._changed.set()


def _unreadable(received: ReceivedMessage, now: float) -> JobRequest:
    """Stands in for a request that nobody can read, so that its job can be ended by name."""
    message = received.message
    return JobRequest(
        tenant=message.tenant, job_id=message.job_id, model="", accepted_at=now, input=Payload(media_type="", data=b"")
    )
