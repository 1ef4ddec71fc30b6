"""A fault of ours ends one worker for a while, and no other role."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from forebay.adapters.memory import (
    MemoryBlobs,
    MemoryCancellations,
    MemoryEventLog,
    MemoryFleet,
    MemoryLog,
    MemoryQueue,
    MemoryStore,
)
from forebay.assembly.backends import Backends
from forebay.assembly.workers import KeptWorker
from forebay.catalog import read_models
from forebay.core.event import EventKind, JobEvent
from forebay.core.lanes import Lane
from forebay.core.message import Channel, ReceivedMessage
from forebay.core.model import ModelStatus
from forebay.core.wire import encode_request
from forebay.ports.fleet import ModelReport
from forebay.ports.queue import Consumer
from forebay.settings import Settings
from forebay.telemetry.metrics import Metrics
from forebay.testing.samples import request
from forebay.worker.solitude import Solitude

MODELS = Path(__file__).resolve().parents[2] / "models"


class FaultyQueue(MemoryQueue):
    """Its first consumer breaks in a way that nobody foresaw."""

    faults = 1

    def consumer(self, channel: Channel) -> Consumer:
        real = super().consumer(channel)
        receive = real.receive

        async def faulty(max_messages: int, wait_s: float) -> list[ReceivedMessage]:
            if self.faults:
                self.faults -= 1
                raise RuntimeError("nobody foresaw this")
            return await receive(max_messages, wait_s)

        real.receive = faulty  # type: ignore[method-assign]  # a fault injector
        return real


class RecordingFleet(MemoryFleet):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[ModelReport] = []

    async def report(self, report: ModelReport) -> None:
        self.seen.append(report)
        await super().report(report)


async def final_event(events: MemoryEventLog) -> JobEvent:
    position = ""
    while True:
        (batch,) = await events.read({events.sources()[0]: position}, 100, 30.0)
        position = batch.end
        finals: Sequence[JobEvent] = [f for f in batch.facts if isinstance(f, JobEvent) and f.kind.final]
        if finals:
            return finals[0]


async def test_a_worker_that_crashes_is_made_anew_and_its_job_succeeds(tmp_path: Path) -> None:
    log = MemoryLog()
    queue, events, fleet = FaultyQueue(log), MemoryEventLog(log), RecordingFleet()
    backends = Backends(
        queue=queue,
        events=events,
        store=MemoryStore(),
        owned=None,
        blobs=MemoryBlobs(),
        fleet=fleet,
        cancellations=MemoryCancellations(),
    )
    spec = read_models(MODELS, ["echo"]).resolve("echo")
    worker = KeptWorker(Settings(data_dir=tmp_path), spec, backends, Metrics(), Solitude())
    await queue.publish(Channel("echo", Lane.NORMAL), [encode_request(request(1))])

    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        final = await final_event(events)
    worker.stop()
    await running

    assert final.kind is EventKind.SUCCEEDED
    crashes = [report for report in fleet.seen if "crashed" in report.reason]
    assert [report.status for report in crashes] == [ModelStatus.UNAVAILABLE]
    assert [(report.restarting, report.restarts) for report in crashes] == [(True, 1)]
    assert (fleet.seen[-1].restarting, fleet.seen[-1].restarts) == (False, 1)
