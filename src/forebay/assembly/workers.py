"""The worker of one model, kept at its post."""

from __future__ import annotations

import asyncio
import contextlib
import os

import structlog

from forebay.assembly.backends import Backends
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.core.model import ModelSpec, ModelStatus
from forebay.ports.fleet import ModelReport
from forebay.settings import Settings
from forebay.telemetry.metrics import Metrics
from forebay.worker.intake import Intake
from forebay.worker.outcomes import WorkerPlan
from forebay.worker.runners import RunnerPlan, Runners
from forebay.worker.solitude import Solitude
from forebay.worker.vitals import Vitals
from forebay.worker.worker import Worker

RUNNER_CLOSE_GRACE_S = 2.0
"""A runner closed at a stop has nothing in hand; a model's own clean-up gets this long."""

AFTER_WORKERS_S = 5.0
"""Of the grace of a stop, what is left for closing runners, last answers and the projector."""

FIRST_RESTART_DELAY_S = 1.0
MAX_RESTART_DELAY_S = 60.0

log = structlog.get_logger()


class KeptWorker:
    """A worker that is made anew, after a growing delay, when a fault of ours ends it: so that the trouble of one
    model is not that of the others. Its messages return to the queue meanwhile."""

    def __init__(
        self, settings: Settings, spec: ModelSpec, backends: Backends, metrics: Metrics, solitude: Solitude
    ) -> None:
        self._settings = settings
        self._spec = spec
        self._backends = backends
        self._metrics = metrics
        self._solitude = solitude
        self._vitals = Vitals(spec.replicas)
        self._stopping = asyncio.Event()
        self._worker: Worker | None = None

    def stop(self) -> None:
        """As Worker.stop."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop()

    async def run(self) -> None:
        delay_s = FIRST_RESTART_DELAY_S
        while not self._stopping.is_set():
            self._worker = self._new()
            try:
                await self._worker.run()
            except Exception:  # the edge of a role: whatever it is, the other models go on
                log.exception("worker.crashed", model=self._spec.name, restart_s=delay_s)
                self._vitals.restarts += 1
                await self._report_crash()
                with contextlib.suppress(TimeoutError):  # not stopped: it starts again
                    async with asyncio.timeout(delay_s):
                        await self._stopping.wait()
                delay_s = min(delay_s * 2, MAX_RESTART_DELAY_S)

    def _new(self) -> Worker:
        settings, spec, backends = self._settings, self._spec, self._backends
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        plan = RunnerPlan(
            worker_id=settings.worker_id,
            decode_threads=max(1, cores // spec.replicas),
            load_timeout_s=settings.load_timeout_s,
            close_grace_s=RUNNER_CLOSE_GRACE_S,
        )
        return Worker(
            spec,
            WorkerPlan(
                worker_id=settings.worker_id,
                inline_limit_bytes=settings.inline_limit_bytes,
                stop_grace_s=max(1.0, settings.shutdown_grace_s - AFTER_WORKERS_S),
            ),
            intake=Intake({lane: backends.queue.consumer(Channel(spec.name, lane)) for lane in Lane}),
            events=backends.events,
            blobs=backends.blobs,
            runners=Runners(spec, plan, fleet=backends.fleet, metrics=self._metrics, vitals=self._vitals),
            metrics=self._metrics,
            canceled=backends.cancellations.heard,
            solitude=self._solitude,
        )

    async def _report_crash(self) -> None:
        await self._backends.fleet.report(
            ModelReport(
                worker=self._settings.worker_id,
                model=self._spec.name,
                version=self._spec.version,
                status=ModelStatus.UNAVAILABLE,
                reason="its worker crashed and is started again; the service's log has the details",
                restarts=self._vitals.restarts,
                restarting=True,
            )
        )
