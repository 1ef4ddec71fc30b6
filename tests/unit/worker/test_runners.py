"""The runners of one model: kept alive, reported truly, handed out by the seat."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from tests.unit.worker.conftest import HANDLER, LONG_S, MODEL, Handlers, gone, until, within

from forebay.adapters.memory import MemoryFleet
from forebay.core.model import ModelSpec, ModelStatus
from forebay.ports.fleet import ModelReport
from forebay.telemetry.metrics import Metrics
from forebay.worker.runners import RunnerPlan, Runners, Seat

LOADS_IF_TOLD = HANDLER.replace(
    "self.folder = folder", 'self.folder = folder\n        assert (folder / "loads").exists(), "not told to load"'
)


class RecordingFleet(MemoryFleet):
    """Keeps every report, not only the newest."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[ModelReport] = []

    async def report(self, report: ModelReport) -> None:
        self.all.append(report)
        await super().report(report)


class Kept:
    """Runners that are being kept alive, and what they say."""

    def __init__(self, spec: ModelSpec) -> None:
        plan = RunnerPlan(worker_id="w-1", decode_threads=1, load_timeout_s=LONG_S, close_grace_s=2.0)
        self.fleet = RecordingFleet()
        self.metrics = Metrics()
        self.runners = Runners(spec, plan, fleet=self.fleet, metrics=self.metrics)
        self.changed = asyncio.Event()
        self.running = asyncio.create_task(self.runners.run(self.changed))

    @property
    def report(self) -> ModelReport:
        return self.fleet.all[-1]

    async def ready(self, replicas: int = 1) -> None:
        await until(lambda: len(self.runners.pids) == replicas)

    async def reported(self, status: ModelStatus) -> ModelReport:
        await until(lambda: self.fleet.all and self.report.status is status)
        return self.report

    def number(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"model": MODEL})

    async def stop(self) -> None:
        self.runners.stop()
        await within(self.running)


Keep = Callable[..., Kept]


@pytest.fixture
async def keep() -> AsyncIterator[Keep]:
    """`keep(spec)`: runners of this model, stopped at the end."""
    kept: list[Kept] = []

    def start(spec: ModelSpec) -> Kept:
        kept.append(Kept(spec))
        return kept[-1]

    yield start
    for one in kept:
        await one.stop()


@pytest.fixture(scope="module")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kept]:
    """One runner, kept for all tests that only take seats in it."""
    kept = Kept(Handlers(tmp_path_factory.mktemp("alone") / MODEL).spec())
    await kept.ready()
    yield kept
    await kept.stop()


class Seats:
    """Takes seats for one test."""

    def __init__(self, runners: Runners) -> None:
        self._runners = runners
        self.taken: list[Seat] = []

    def take(self, *, pipelined: bool = False, apart: bool = False) -> bool:
        """Whether there was one."""
        seat = self._runners.seat(pipelined=pipelined, apart=apart)
        self.taken += [seat] if seat else []
        return seat is not None

    def leave(self) -> None:
        while self.taken:
            self.taken.pop().leave()


@pytest.fixture
def seats(alone: Kept) -> Iterator[Seats]:
    """Of one idle runner."""
    seats = Seats(alone.runners)
    yield seats
    seats.leave()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


# ----------------------------------------------------------------------------------------------------------- kept alive


async def test_every_replica_is_a_process_of_its_own(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec(replicas=2))
    await kept.ready(2)
    assert len(set(kept.runners.pids)) == 2


async def test_a_runner_that_dies_is_replaced(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec())
    await kept.ready()
    [before] = kept.runners.pids
    kill(before)
    await until(lambda: kept.runners.pids not in ([], [before]))


async def test_runners_are_gone_after_a_stop(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec(replicas=2))
    await kept.ready(2)
    pids = kept.runners.pids
    await kept.stop()
    assert [gone(pid) for pid in pids] == [True, True]


async def test_a_stop_does_not_wait_for_a_model_to_load(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec("import threading\nthreading.Event().wait()"))
    await until(lambda: kept.number("forebay_runner_starts_total"))
    await within(kept.stop(), 5.0)


async def test_starts_of_runners_are_counted(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec(replicas=2))
    await kept.ready(2)
    assert (kept.number("forebay_runner_starts_total"), kept.number("forebay_runners_ready")) == (2, 2)


# ------------------------------------------------------------------------------------------------------------- reported


async def test_a_model_is_loading_before_it_is_ready(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec())
    await kept.reported(ModelStatus.READY)
    assert [one.status for one in kept.fleet.all] == [ModelStatus.LOADING, ModelStatus.READY]


async def test_a_ready_model_tells_how_many_replicas_are(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec(replicas=2))
    await kept.ready(2)
    report = await kept.reported(ModelStatus.READY)
    assert (report.worker, report.model, report.version, report.replicas_ready) == ("w-1", MODEL, "1", 2)


async def test_a_replica_that_dies_is_missing_in_the_report(keep: Keep, handlers: Handlers) -> None:
    spec = handlers.spec(LOADS_IF_TOLD, replicas=2)
    (handlers.folder / "loads").touch()
    kept = keep(spec)
    await kept.ready(2)
    (handlers.folder / "loads").unlink()  # so that it stays missing
    kill(kept.runners.pids[0])
    await until(lambda: (kept.report.status, kept.report.replicas_ready) == (ModelStatus.READY, 1))


async def test_a_model_that_cannot_be_loaded_is_unavailable_for_a_reason(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec(LOADS_IF_TOLD))
    assert (await kept.reported(ModelStatus.UNAVAILABLE)).reason == "AssertionError: not told to load"


async def test_a_model_that_could_not_be_loaded_is_tried_again(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec(LOADS_IF_TOLD))
    await kept.reported(ModelStatus.UNAVAILABLE)
    (handlers.folder / "loads").touch()
    assert (await kept.reported(ModelStatus.READY)).reason == ""


async def test_a_model_whose_last_runner_died_says_why_it_loads_again(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec())
    await kept.ready()
    kill(kept.runners.pids[0])
    report = await kept.reported(ModelStatus.LOADING)
    assert report.reason == "restarting: the runner was killed by SIGKILL"
    assert (report.restarting, report.restarts) == (True, 1)


async def test_ready_is_cleared_while_no_runner_has_the_model(keep: Keep, handlers: Handlers) -> None:
    spec = handlers.spec(LOADS_IF_TOLD)
    (handlers.folder / "loads").touch()
    kept = keep(spec)
    await within(kept.runners.ready.wait())
    (handlers.folder / "loads").unlink()
    kill(kept.runners.pids[0])
    await kept.reported(ModelStatus.UNAVAILABLE)
    assert not kept.runners.ready.is_set()


# ---------------------------------------------------------------------------------------------------------------- seats


async def test_an_idle_runner_has_one_seat(seats: Seats) -> None:
    assert [seats.take() for _ in range(2)] == [True, False]


async def test_a_busy_runner_has_one_more_seat_for_a_full_batch(seats: Seats) -> None:
    assert [seats.take(pipelined=True) for _ in range(3)] == [True, True, False]


async def test_a_batch_apart_sits_only_in_an_idle_runner(seats: Seats) -> None:
    assert [seats.take(), seats.take(pipelined=True, apart=True)] == [True, False]


async def test_nobody_sits_beside_a_batch_apart(seats: Seats) -> None:
    assert [seats.take(apart=True), seats.take(pipelined=True)] == [True, False]


@pytest.mark.parametrize("apart", [False, True])
async def test_a_seat_that_was_left_can_be_taken_again(apart: bool, seats: Seats) -> None:
    seats.take(apart=apart)
    seats.leave()
    assert seats.take(apart=apart)


async def test_whoever_waits_for_a_seat_is_woken_when_one_is_left(alone: Kept, seats: Seats) -> None:
    seats.take()
    alone.changed.clear()
    seats.leave()
    assert alone.changed.is_set()


async def test_a_full_batch_goes_to_an_idle_runner_before_a_busy_one(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec(replicas=2))
    await kept.ready(2)
    seats = [kept.runners.seat(pipelined=True, apart=False) for _ in range(2)]
    assert len({seat.runner.pid for seat in seats if seat}) == 2


async def test_whoever_waits_for_a_seat_is_woken_when_a_runner_is_ready(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec())
    await within(kept.changed.wait())
    assert kept.runners.seat(pipelined=False, apart=False)


async def test_a_dead_runner_has_no_seat(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec())
    await kept.ready()
    seat = kept.runners.seat(pipelined=False, apart=False)
    assert seat
    seat.leave()
    died: Any = seat.runner.died
    kill(kept.runners.pids[0])
    await within(died.wait())
    assert kept.runners.seat(pipelined=True, apart=False) is None


async def test_a_seat_in_a_runner_that_died_can_be_left(keep: Keep, handlers: Handlers) -> None:
    kept = keep(handlers.spec())
    await kept.ready()
    seat = kept.runners.seat(pipelined=False, apart=False)
    assert seat
    kill(kept.runners.pids[0])
    await kept.reported(ModelStatus.LOADING)
    seat.leave()
    await kept.ready()
    assert kept.runners.seat(pipelined=False, apart=False)
