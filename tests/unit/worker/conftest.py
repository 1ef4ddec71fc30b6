"""A worker's parts on the memory adapters, with real runner children, on the event loop that the service runs on."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec import structs

from forebay.adapters.memory import (
    MemoryBlobs,
    MemoryCancellations,
    MemoryEventLog,
    MemoryFleet,
    MemoryLog,
    MemoryQueue,
)
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.fact import Event
from forebay.core.lanes import Lane
from forebay.core.message import Channel, Message
from forebay.core.model import ModelSpec
from forebay.core.pace import Pace
from forebay.core.payload import JSON
from forebay.core.wire import decode, encode_request
from forebay.telemetry.metrics import Metrics
from forebay.testing.clock import HandClock
from forebay.testing.samples import job_id, request
from forebay.worker import frames
from forebay.worker.intake import Intake
from forebay.worker.outcomes import WorkerPlan
from forebay.worker.runner import Runner
from forebay.worker.runners import RunnerPlan, Runners
from forebay.worker.solitude import Solitude
from forebay.worker.worker import Worker

T = TypeVar("T")

LONG_S = 30.0
"""A wait that a passing test never sits out."""

MODEL = "bench"

HANDLER = '''
"""Does what each input says, and keeps a ledger: one line per call, with the jobs and attempts that it ran."""

import os
import signal
import socket
import stat
import threading
import time

from forebay import ModelFailed


class Model:
    def load(self, folder):
        self.folder = folder

    def predict(self, inputs, contexts):
        with open(self.folder / "ledger", "a") as ledger:
            ledger.write(" ".join(f"{one.job_id}/{one.attempt}" for one in contexts) + "\\n")
        outputs = []
        for one, self.context in zip(inputs, contexts):
            outputs.append(getattr(self, one["do"])(one))
        return outputs

    def close(self):
        (self.folder / "closed").touch()

    def echo(self, one):
        return one

    def refuse(self, one):
        return ModelFailed("refused", code="refused")

    def later(self, one):
        return ModelFailed("not now", code="not_now", retryable=True)

    def later_all(self, one):
        raise ModelFailed("nobody now", code="nobody_now", retryable=True)

    def fail(self, one):
        raise RuntimeError("a secret of the model's author")

    def die(self, one):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self, one):
        os._exit(3)

    def hang(self, one):
        threading.Event().wait()

    def heed(self, one):
        (self.folder / "heeding").touch()
        self.context.canceled.wait()
        (self.folder / "heeded").touch()
        return one

    def heed_and_talk(self, one):
        (self.folder / "heeding").touch()
        self.context.canceled.wait()
        self.context.emit("late")
        self.context.progress(0.5)

    def take(self, one):
        time.sleep(one["seconds"])
        return one

    def gate(self, one):
        with open(one["fifo"], "rb") as fifo:
            fifo.read()
        return one

    def talk(self, one):
        for chunk in one.get("chunks", []):
            self.context.emit(chunk)
        for fraction in one.get("progress", []):
            self.context.progress(fraction)
        if self.context.attempt == 1 and "first" in one:
            one = one | {"then": one["first"]}
        return getattr(self, one.get("then", "echo"))(one)

    def large(self, one):
        return "x" * one["size"]

    def say(self, one):
        for name in os.listdir("/proc/self/fd"):
            try:
                found = stat.S_ISSOCK(os.fstat(int(name)).st_mode)
            except OSError:  # it was the listing's own
                continue
            if found:
                with socket.socket(fileno=os.dup(int(name))) as link:
                    link.sendall(bytes.fromhex(one["hex"]))
        return one if one["return"] else self.hang(one)
'''


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """uvloop, as in production: its transports differ from asyncio's where a link breaks."""
    return "asyncio", {"use_uvloop": True}


async def until(condition: Callable[[], T], within_s: float = LONG_S) -> T:
    """What `condition()` gives once it is truthy, for what nothing offers to wait on."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so after {within_s:g} s"
        await asyncio.sleep(0.005)
    return value


async def within(awaitable: Awaitable[T], seconds: float = LONG_S) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


def gone(pid: int | None) -> bool:
    """The process is no more (reaped too)."""
    assert pid is not None
    return not Path(f"/proc/{pid}").exists()


class Gate:
    """Holds a handler inside `predict`: `reached()` returns when one waits there, `open()` lets it go on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None
        os.mkfifo(path)

    @property
    def input(self) -> dict[str, str]:
        return {"do": "gate", "fifo": str(self.path)}

    async def reached(self) -> None:
        await until(self._try)

    def _try(self) -> bool:
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            return False
        return True

    def open(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@pytest.fixture
def gate(tmp_path: Path) -> Any:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


class Handlers:
    """Writes handlers and describes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def spec(self, source: str = HANDLER, **facts: Any) -> ModelSpec:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "model.py").write_text(textwrap.dedent(source))
        return ModelSpec(name=MODEL, version="1", task="json", runtime="python", folder=str(self.folder), **facts)

    @property
    def closed(self) -> bool:
        """The handler was asked to clean up."""
        return (self.folder / "closed").exists()

    @property
    def calls(self) -> list[list[tuple[str, int]]]:
        """The ledger: for each call of `predict` the jobs that it ran, and in which attempt of each."""
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [[(name, int(n)) for name, n in (one.split("/") for one in line.split())] for line in lines]


@pytest.fixture
def handlers(tmp_path: Path) -> Handlers:
    return Handlers(tmp_path / MODEL)


StartRunner = Callable[..., Awaitable[Runner]]


@pytest.fixture
async def start_runner(handlers: Handlers) -> AsyncIterator[StartRunner]:
    """`start_runner(spec)`: a runner with the model loaded. Killed at the end."""
    runners: list[Runner] = []

    async def start(spec: ModelSpec | None = None, load_timeout_s: float = LONG_S) -> Runner:
        runner = Runner(spec or handlers.spec(), decode_threads=1, load_timeout_s=load_timeout_s)
        runners.append(runner)
        await runner.start()
        return runner

    yield start
    for runner in runners:
        await runner.kill()


@pytest.fixture(scope="module")
async def lent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Runner]]:
    """The runner of a module's tests that leave it as they found it."""
    runner = Runner(Handlers(tmp_path_factory.mktemp("lent") / MODEL).spec(), decode_threads=1, load_timeout_s=LONG_S)
    await runner.start()
    yield [runner]
    await runner.kill()


@pytest.fixture
def runner(lent: list[Runner]) -> Runner:
    """A runner with the model loaded, for a test that ends no runner: starting one costs more than most tests."""
    [runner] = lent
    assert not runner.died.is_set(), "an earlier test ended it"
    assert not runner.outstanding, "an earlier test left a batch in it"
    return runner


def item(value: Any, number: int = 1, attempt: int = 1) -> frames.Item:
    return frames.Item(job_id(number), attempt, JSON, json.dumps(value).encode(), b"")


async def begun() -> None:
    """An attempt that is recorded at once."""


async def predict(runner: Runner, *values: Any, timeout_s: float = LONG_S) -> list[Any]:
    """The outputs of one batch; of an input that failed alone, the code."""
    done = await within(runner.predict([item(one, n) for n, one in enumerate(values)], begun, timeout_s))
    return [json.loads(one.data) if one.error is None else one.error.code for one in done.outcomes]


class AwayLog(MemoryEventLog):
    """Raises Unavailable for the next `away` publishings that hold one of `kinds`."""

    def __init__(self, shared: MemoryLog) -> None:
        super().__init__(shared)
        self.away = 0
        self.kinds: set[EventKind] = set(EventKind)

    async def publish(self, events: Sequence[Event]) -> None:
        if self.away and any(event.kind in self.kinds for event in events):
            self.away -= 1
            raise Unavailable("the log is away", retry_after_s=0.01)
        await super().publish(events)


class Bench:
    """One model's worker on memory adapters. Wall time stands still until a test moves it."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.shared = MemoryLog(wall=self.clock, elapsed=self.clock)
        self.queue = MemoryQueue(self.shared, self.clock)
        self.events = AwayLog(self.shared)
        self.blobs = MemoryBlobs()
        self.fleet = MemoryFleet()
        self.cancellations = MemoryCancellations()
        self.metrics = Metrics()

    @property
    def paces(self) -> list[Pace]:
        """What the worker says last of how fast it gets on."""
        return [report.pace for report in self.fleet._reports.values() if report.pace is not None]

    def channel(self, lane: Lane = Lane.NORMAL) -> Channel:
        return Channel(MODEL, lane)

    async def submit(self, number: int, value: Any = None, **fields: Any) -> str:
        """Job `number`, accepted now, echoed by the handler unless `value` says otherwise. Returns its id."""
        accepted = structs.replace(
            request(number, model=MODEL, data=json.dumps(value or {"do": "echo", "n": number}).encode()),
            accepted_at=self.clock.now,
            **fields,
        )
        await self.publish(encode_request(accepted), Lane(accepted.lane))
        return accepted.job_id

    async def cancel(self, job: str) -> None:
        """As the API does: the event first, then the word to the workers."""
        [tenant] = {one.tenant for one in self.shared.messages if one.job_id == job}
        canceled = JobEvent(tenant=tenant, job_id=job, kind=EventKind.CANCELED, at=self.clock.now)
        await self.events.publish([canceled])
        await self.cancellations.announce(tenant, job)

    async def publish(self, message: Message, lane: Lane = Lane.NORMAL) -> None:
        await self.queue.publish(self.channel(lane), [message])

    @asynccontextmanager
    async def worker(
        self,
        spec: ModelSpec,
        *,
        inline_limit_bytes: int = 1_000_000,
        stop_grace_s: float = LONG_S,
        close_grace_s: float = 2.0,
        solitude: Solitude | None = None,
    ) -> AsyncIterator[Worker]:
        """A running worker, which is stopped at the end if it still runs."""
        plan = RunnerPlan(worker_id="w-1", decode_threads=1, load_timeout_s=LONG_S, close_grace_s=close_grace_s)
        self.intake = Intake({lane: self.queue.consumer(self.channel(lane)) for lane in Lane})
        self.runners = Runners(spec, plan, fleet=self.fleet, metrics=self.metrics)
        worker = Worker(
            spec,
            WorkerPlan(worker_id="w-1", inline_limit_bytes=inline_limit_bytes, stop_grace_s=stop_grace_s),
            intake=self.intake,
            events=self.events,
            blobs=self.blobs,
            runners=self.runners,
            metrics=self.metrics,
            canceled=self.cancellations.heard,
            solitude=solitude,
            clock=self.clock,
            random=lambda: 0.5,
        )
        self.running = asyncio.create_task(worker.run())
        try:
            yield worker
            worker.stop()
            await within(self.running)
        finally:
            if not self.running.done():
                self.running.cancel()
                await asyncio.wait({self.running})

    def facts(self, job: str) -> list[JobEvent]:
        """What the log holds of this job, beside its request."""
        found = (decode(one) for one in self.shared.messages if one.job_id == job and "forebay-attempt" in one.headers)
        return [fact for fact in found if isinstance(fact, JobEvent)]

    def kinds(self, job: str) -> list[tuple[str, int]]:
        """Each event's word and attempt, in order."""
        return [(fact.kind.value, fact.attempt) for fact in self.facts(job)]

    async def final(self, job: str) -> JobEvent:
        """The first final event of this job, once it is there."""

        def find() -> JobEvent | None:
            assert not self.running.done() or self.running.exception() is None, self.running.exception()
            return next((fact for fact in self.facts(job) if fact.kind.final), None)

        found = await until(find)
        assert found is not None
        return found

    async def finals(self, jobs: Sequence[str]) -> list[JobEvent]:
        return [await self.final(job) for job in jobs]

    async def depth(self) -> int:
        """Jobs of any lane that are not acknowledged."""
        return sum([await self.queue.depth(self.channel(lane)) for lane in Lane])


@pytest.fixture
def bench() -> Bench:
    return Bench()
