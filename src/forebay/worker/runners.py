"""The runners of one model: kept alive, handed out by the seat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog
from msgspec import Struct, structs

from forebay.core.errors import Misconfigured
from forebay.core.model import ModelSpec, ModelStatus
from forebay.ports.fleet import Fleet, ModelReport
from forebay.telemetry.metrics import Metrics
from forebay.worker.runner import PIPELINE_DEPTH, Runner
from forebay.worker.vitals import Vitals
from forebay.worker.waiting import wait_for

FIRST_RESTART_DELAY_S = 0.5
MAX_RESTART_DELAY_S = 60.0
TELL_EVERY_S = 2.0
"""How often a worker says how fast it gets on, where that has changed."""

log = structlog.get_logger()


class RunnerPlan(Struct, frozen=True, kw_only=True):
    worker_id: str
    decode_threads: int
    load_timeout_s: float
    close_grace_s: float


class Seat:
    """The right to hand one batch to a runner. Give it back with `leave()`, once; `apart`: nobody sits beside it."""

    def __init__(self, runner: Runner, apart: bool, on_leave: Callable[[Seat], None]) -> None:
        self.runner = runner
        self.apart = apart
        self._on_leave = on_leave

    def leave(self) -> None:
        self._on_leave(self)


class Runners:
    """`spec.replicas` runner processes.

    A runner that dies is replaced. One that cannot load its model makes the model `unavailable`, is reported with the
    reason, and is tried again after a growing delay; so is one that dies before it was handed anything.
    """

    def __init__(
        self, spec: ModelSpec, plan: RunnerPlan, *, fleet: Fleet, metrics: Metrics, vitals: Vitals | None = None
    ) -> None:
        self._spec = spec
        self._plan = plan
        self._fleet = fleet
        self._metrics = metrics
        self.vitals = vitals or Vitals(spec.replicas)
        self._said: ModelReport | None = None
        self._seats: dict[Runner, list[Seat]] = {}
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self.ready = asyncio.Event()
        """Set while at least one runner has the model loaded."""

    @property
    def pids(self) -> list[int]:
        return [runner.pid for runner in self._seats if runner.pid is not None]

    def seat(self, *, pipelined: bool, apart: bool) -> Seat | None:
        """A seat in an idle runner; with `pipelined` also behind one batch, to be decoded while that one is predicted.

        With `apart` only an idle runner will do, and nobody gets a seat beside it. None when there is no such seat.
        """
        open_runners = self._open(pipelined=pipelined, apart=apart)
        if not open_runners:
            return None
        runner = min(open_runners, key=lambda one: len(self._seats[one]))
        seat = Seat(runner, apart, self._left)
        self._seats[runner].append(seat)
        return seat

    def can_seat(self, *, pipelined: bool, apart: bool) -> bool:
        """Whether `seat` would give one."""
        return bool(self._open(pipelined=pipelined, apart=apart))

    def _open(self, *, pipelined: bool, apart: bool) -> list[Runner]:
        depth = 1 if apart or not pipelined else PIPELINE_DEPTH
        return [
            runner
            for runner, seats in self._seats.items()
            if len(seats) < depth and runner.usable and not any(seat.apart for seat in seats)
        ]

    def _left(self, seat: Seat) -> None:
        if seat.runner in self._seats:
            self._seats[seat.runner].remove(seat)
        self._changed.set()

    def cancel(self, job_id: str) -> None:
        """As Runner.cancel, wherever the job may run."""
        for runner in self._seats:
            runner.cancel(job_id)

    def stop(self) -> None:
        """End the runners; what they still predict is lost."""
        self._stopping.set()

    async def run(self, changed: asyncio.Event) -> None:
        """Keep the runners alive until `stop()`. Sets `changed` whenever a seat may have become free."""
        self._changed = changed
        await self._report(ModelStatus.LOADING)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_pace())
            for _ in range(self._spec.replicas):
                tasks.create_task(self._keep())

    async def _tell_pace(self) -> None:
        while not self._stopping.is_set():
            await wait_for(self._stopping, TELL_EVERY_S)
            if self._said is not None:
                report = structs.replace(self._said, pace=self.vitals.pace(), away=self.vitals.away)
                if report != self._said:
                    await self._tell(report)

    async def _keep(self) -> None:
        delay_s = FIRST_RESTART_DELAY_S
        while not self._stopping.is_set():
            runner = await self._start()
            if runner is not None:
                try:
                    await self._serve(runner)
                finally:
                    await runner.kill()  # gone already, unless this is a cancellation
                if runner.served:  # it worked, and an input ended it: its successor is needed at once
                    delay_s = FIRST_RESTART_DELAY_S
                    continue
            await wait_for(self._stopping, delay_s)
            delay_s = min(delay_s * 2, MAX_RESTART_DELAY_S)

    async def _start(self) -> Runner | None:
        """A runner with the model loaded, or None: it cannot be loaded, or a stop came first."""
        plan = self._plan
        runner = Runner(self._spec, decode_threads=plan.decode_threads, load_timeout_s=plan.load_timeout_s)
        self._metrics.runner_starts.labels(self._spec.name).inc()
        starting = asyncio.create_task(runner.start())
        stop = asyncio.create_task(self._stopping.wait())
        with self._metrics.model_load_seconds.labels(self._spec.name).time():
            try:
                await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.cancel()
                if not starting.done():
                    starting.cancel()
                await asyncio.wait({starting, stop})
        if starting.cancelled():
            return None
        try:
            self._log_loaded(runner, starting.result())
        except Misconfigured as error:
            log.error("model.unavailable", model=self._spec.name, version=self._spec.version, reason=error.message)
            if not self._seats:
                await self._report(ModelStatus.UNAVAILABLE, error.message)
            return None
        return runner

    def _log_loaded(self, runner: Runner, facts: Mapping[str, object]) -> None:
        log.info("model.loaded", model=self._spec.name, version=self._spec.version, pid=runner.pid, **facts)

    async def _serve(self, runner: Runner) -> None:
        """Hand out seats in this runner until it dies or a stop comes."""
        self._seats[runner] = []
        self._metrics.runners_ready.labels(self._spec.name).set(len(self._seats))
        self.ready.set()
        await self._report(ModelStatus.READY)
        self._changed.set()
        died = asyncio.create_task(runner.died.wait())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({died, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            died.cancel()
            stop.cancel()
            del self._seats[runner]
            self._metrics.runners_ready.labels(self._spec.name).set(len(self._seats))
        if not runner.died.is_set():
            await runner.close(self._plan.close_grace_s)
            return
        log.warning("runner.died", model=self._spec.name, pid=runner.pid, reason=runner.death.message)
        self.vitals.restarts += 1
        if self._seats:
            await self._report(ModelStatus.READY)
            return
        self.ready.clear()
        await self._report(ModelStatus.LOADING, f"restarting: {runner.death.message}", restarting=True)

    async def _report(self, status: ModelStatus, reason: str = "", *, restarting: bool = False) -> None:
        await self._tell(
            ModelReport(
                worker=self._plan.worker_id,
                model=self._spec.name,
                version=self._spec.version,
                status=status,
                reason=reason,
                replicas_ready=len(self._seats),
                restarts=self.vitals.restarts,
                restarting=restarting,
                away=self.vitals.away,
                pace=self.vitals.pace(),
            )
        )

    async def _tell(self, report: ModelReport) -> None:
        self._said = report
        await self._fleet.report(report)
