"""What time brings about, with every clock in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import structlog.testing
from msgspec.structs import replace

from forebay.adapters.memory import MemoryBlobs, MemoryEventLog, MemoryLog, MemoryQueue, MemoryStore
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.core import crash
from forebay.core.errors import BlobDamaged, Unavailable
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.fact import JobFact
from forebay.core.job import Job, JobStatus
from forebay.core.message import Channel
from forebay.core.payload import JSON, Payload
from forebay.core.wire import encode_request
from forebay.ports.event_log import EventLog
from forebay.ports.queue import Queue
from forebay.ports.reservations import Claim
from forebay.ports.store import ResultStore
from forebay.projector import Projector, rebuild
from forebay.scheduler import Timekeeper, TimekeeperPlan, timekeeper
from forebay.telemetry.metrics import Metrics
from forebay.testing.clock import HandClock
from forebay.testing.samples import TENANT, event, job_id, request, succeeded
from forebay.testing.store_contract import keyed, reservation

CHANNEL = Channel("sample", "normal")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


class World:
    """A log, a store and blobs. `wall` is the clock that can be set, `elapsed` the one that cannot."""

    def __init__(self, wall: HandClock, elapsed: HandClock, queue: Queue, events: EventLog, store: ResultStore) -> None:
        self.wall = wall
        self.elapsed = elapsed
        self.queue = queue
        self.events = events
        self.store = store
        self.blobs = MemoryBlobs()
        self.metrics = Metrics()
        self.keeper = self.another()

    def another(self, blobs: MemoryBlobs | None = None) -> Timekeeper:
        return Timekeeper(
            TimekeeperPlan(),
            events=self.events,
            store=self.store,
            blobs=blobs or self.blobs,
            queue=self.queue,
            metrics=self.metrics,
            clock=self.wall,
            monotonic=self.elapsed,
            random=lambda: 0.5,
        )

    async def passes(self, seconds: float) -> None:
        """Time, by every clock; then all that it brings about."""
        self.elapsed.advance(seconds)
        self.wall.advance(seconds)
        await self.settles()

    async def settles(self) -> None:
        for _ in range(3):
            await turn(self.keeper)
            await self.project()

    async def project(self) -> None:
        projector = Projector(self.events, self.store, self.metrics)
        projector.stop()
        await projector.run()

    async def submit(self, number: int, **clocks: float) -> JobRequest:
        """One that is accepted now, by the API's clock."""
        self.accepted_at = self.wall()
        wanted = replace(request(number), accepted_at=self.accepted_at, **clocks)
        await self.queue.publish(CHANNEL, [encode_request(wanted)])
        await self.project()
        return wanted

    async def hears(self, *events: JobEvent) -> None:
        await self.events.publish(events)
        await self.project()

    async def job(self, number: int) -> Job:
        job = await self.store.get(TENANT, job_id(number))
        assert job is not None
        return job

    async def logged(self) -> list[JobRequest | JobEvent]:
        [batch] = await self.events.read({"log": ""}, 1000, 0.0)
        return [fact for fact in batch.facts if isinstance(fact, JobFact)]


async def turn(keeper: Timekeeper) -> None:
    """A step of all that it does."""
    for step in (keeper.say, keeper.sweep, keeper.forget):
        await step()


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    wall, elapsed = HandClock(), HandClock(5.0)
    if request.param == "memory":
        log = MemoryLog(wall, elapsed)
        yield World(wall, elapsed, MemoryQueue(log, wall), MemoryEventLog(log), MemoryStore())
        return
    database = Database(tmp_path, wall=wall, elapsed=elapsed).open()
    yield World(wall, elapsed, SqliteQueue(database, wall), SqliteEventLog(database), SqliteStore(database, wall))
    await database.close()


# ------------------------------------------------------------------------------------------------------------- expiry


async def test_a_job_that_no_worker_looks_at_expires(world: World) -> None:
    await world.submit(1, start_within_s=60.0)
    await world.passes(59.9)
    assert (await world.job(1)).status is JobStatus.QUEUED
    await world.passes(0.1)
    job = await world.job(1)
    assert (job.status, job.attempts, job.error) == (JobStatus.EXPIRED, 0, None)


async def test_a_job_that_has_started_does_not_expire(world: World) -> None:
    await world.submit(1, start_within_s=60.0)
    await world.hears(event(1, EventKind.STARTED))
    await world.passes(61.0)
    assert (await world.job(1)).status is JobStatus.RUNNING


async def test_a_start_that_comes_first_in_the_log_beats_an_expiry(world: World) -> None:
    await world.submit(1, start_within_s=60.0)
    world.elapsed.advance(61.0)
    await world.events.publish([event(1, EventKind.STARTED)])  # which no store has seen yet
    await world.settles()
    assert (await world.job(1)).status is JobStatus.RUNNING
    assert (await world.logged())[-1].kind is EventKind.EXPIRED  # type: ignore[union-attr]  # it is an event


async def test_nothing_waits_for_ever(world: World) -> None:
    await world.submit(1, max_life_s=HOUR_S)
    await world.submit(2, max_life_s=HOUR_S)
    await world.hears(event(2, EventKind.STARTED))
    await world.passes(HOUR_S)
    waiting, running = await world.job(1), await world.job(2)
    for job in (waiting, running):
        assert job.error is not None
        assert (job.status, job.error.code, job.error.retryable) == (JobStatus.FAILED, "deadline", False)
    assert (waiting.attempts, running.attempts) == (0, 1)


async def test_a_job_that_has_started_and_may_wait_for_as_long_as_it_may_live_ends(world: World) -> None:
    await world.submit(1, start_within_s=HOUR_S, max_life_s=HOUR_S)
    await world.submit(2, start_within_s=HOUR_S, max_life_s=HOUR_S)
    await world.hears(event(2, EventKind.STARTED))
    await world.passes(HOUR_S)
    assert (await world.job(1)).status is JobStatus.EXPIRED
    job = await world.job(2)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "deadline")


async def test_a_record_of_another_producer_has_a_day(world: World) -> None:
    await world.submit(1)
    await world.passes(DAY_S)
    assert (await world.job(1)).status is JobStatus.FAILED


# ---------------------------------------------------------------------------------------------------- clocks that jump


@pytest.mark.parametrize("hours", [-30 * 24, -5, 5, 30 * 24])
async def test_a_wall_clock_that_jumps_ends_nothing_early_and_nothing_late(world: World, hours: float) -> None:
    await world.submit(1, start_within_s=60.0)
    await world.submit(2)
    await world.hears(succeeded(2, Payload(media_type=JSON, data=b"1")))
    world.wall.advance(hours * HOUR_S)
    await world.submit(3, start_within_s=60.0)  # accepted by the clock that is wrong
    await world.settles()
    assert [(await world.job(n)).status for n in (1, 2, 3)] == ["queued", "succeeded", "queued"]
    await world.passes(60.0)
    assert [(await world.job(n)).status for n in (1, 2, 3)] == ["expired", "succeeded", "expired"]
    await world.passes(DAY_S)
    assert (await world.job(2)).deleted_at is not None


async def test_a_restart_with_a_clock_set_back_goes_on_where_the_log_ended(tmp_path: Path) -> None:
    wall, elapsed = HandClock(), HandClock(5.0)
    database = Database(tmp_path, wall=wall, elapsed=elapsed).open()
    elapsed.advance(100.0)
    await SqliteQueue(database).publish(CHANNEL, [encode_request(request(1))])
    ended_at = await SqliteEventLog(database).now()
    await database.close()
    wall.advance(-5 * HOUR_S)
    database = Database(tmp_path, wall=wall, elapsed=elapsed).open()
    assert await SqliteEventLog(database).now() == ended_at
    await database.close()


async def test_whoever_is_early_is_not_believed(world: World) -> None:
    """Such as a scheduler, or a worker, whose idea of the log's time is wrong."""
    await world.submit(1, start_within_s=60.0)
    due = await world.store.due(await world.events.now() + 60.0, 9)
    early = event(1, EventKind.EXPIRED, attempt=0)
    await world.hears(replace(early, at=early.at + DAY_S, not_before=due[0].over_at))
    assert (await world.job(1)).status is JobStatus.QUEUED


# ---------------------------------------------------------------------------------------------------------- retention


async def finished(world: World, number: int, **clocks: float) -> None:
    """With its input and its output in the blob store."""
    wanted = await world.submit(number, **clocks)
    for data in (wanted.input.data or b"", b"output"):
        await world.blobs.put(TENANT, job_id(number), data)
    await world.hears(event(number, EventKind.STARTED), succeeded(number, Payload(media_type=JSON, data=b'"output"')))


async def test_a_final_job_is_kept_for_so_long_and_then_gone_with_all_its_bytes(world: World) -> None:
    await finished(world, 1, retain_s=60.0)
    await finished(world, 2, retain_s=120.0)
    await world.passes(59.9)
    assert (await world.job(1)).output is not None
    await world.passes(0.1)
    at = (await world.job(1)).deleted_at
    done = succeeded(1, Payload(media_type=JSON, data=b"")).at
    assert await world.job(1) == Job(
        tenant=TENANT,
        id=job_id(1),
        status=JobStatus.SUCCEEDED,
        created_at=world.accepted_at,
        finished_at=done,
        deleted_at=at,
    )
    assert {name.split("/")[1] for name in world.blobs.blobs} == {job_id(2)}
    assert (await world.job(2)).output is not None


async def test_a_job_that_was_canceled_is_kept_from_its_cancellation_on(world: World) -> None:
    await world.submit(1, retain_s=60.0)
    await world.passes(600.0)
    await world.hears(event(1, EventKind.CANCELED, attempt=0))
    await world.passes(59.9)
    assert (await world.job(1)).status is JobStatus.CANCELED
    await world.passes(0.1)
    assert (await world.job(1)).deleted_at is not None


async def test_it_is_known_for_a_week_that_there_was_a_job(world: World) -> None:
    await finished(world, 1, retain_s=60.0)
    await world.passes(60.0)
    await world.blobs.put(TENANT, job_id(1), b"what a worker brings late")
    await world.passes(7 * DAY_S - 1.0)
    assert (await world.job(1)).deleted_at is not None
    await world.passes(HOUR_S)
    assert await world.store.get(TENANT, job_id(1)) is None
    assert world.blobs.blobs == {}


async def test_a_key_lives_as_long_as_what_is_known_of_its_job(world: World) -> None:
    await world.queue.publish(CHANNEL, [encode_request(replace(keyed(1), retain_s=60.0))])
    await world.hears(succeeded(1, Payload(media_type=JSON, data=b"1")))
    await world.passes(60.0)
    assert await world.store.reserved(TENANT, "key") is not None
    await world.passes(8 * DAY_S)
    assert await world.store.reserved(TENANT, "key") is None


async def test_a_reservation_that_nobody_used_goes_after_two_days(world: World) -> None:
    wanted = replace(reservation(1), accepted_at=world.wall())
    assert await world.store.reserve(wanted, holder="a", lease_s=1.0) == Claim(wanted, held=True)
    await world.passes(DAY_S)
    assert await world.store.reserved(TENANT, "key") is not None
    await world.passes(DAY_S + HOUR_S)
    assert await world.store.reserved(TENANT, "key") is None


async def test_a_rebuild_gives_the_same_tombstones_and_needs_no_blob(world: World) -> None:
    await finished(world, 1, retain_s=60.0)
    await finished(world, 2)
    await world.passes(60.0)
    before = [await world.job(n) for n in (1, 2)]
    await rebuild(world.events, world.store, world.metrics)
    assert [await world.job(n) for n in (1, 2)] == before
    await world.settles()
    assert await world.store.unswept(9) == []


@pytest.mark.parametrize("world", ["sqlite"], indirect=True)
async def test_an_embedded_log_keeps_nothing_of_a_deleted_job_but_that_it_is(world: World) -> None:
    await finished(world, 1, retain_s=60.0)
    await finished(world, 2)
    assert await world.queue.depth(CHANNEL) == 2
    await world.passes(60.0)
    kinds = [(fact.job_id, getattr(fact, "kind", "request")) for fact in await world.logged()]
    assert [kind for of, kind in kinds if of == job_id(1)] == ["deleted"]
    assert len([kind for of, kind in kinds if of == job_id(2)]) == 3
    assert await world.queue.depth(CHANNEL) == 1  # what nobody received waits no longer
    [received] = await world.queue.consumer(CHANNEL).receive(9, 0.0)
    assert received.message.job_id == job_id(2)
    await world.passes(8 * DAY_S)
    assert [fact for fact in await world.logged() if fact.job_id == job_id(1)] == []


async def test_what_is_in_a_workers_hand_may_be_forgotten(world: World) -> None:
    await finished(world, 1, retain_s=60.0)
    consumer = world.queue.consumer(CHANNEL)
    received = await consumer.receive(1, 0.0)
    await world.passes(60.0)
    await consumer.ack(received)
    assert await world.queue.depth(CHANNEL) == 0


# -------------------------------------------------------------------------------------------------- several, and deaths


async def test_several_that_run_side_by_side_change_nothing(world: World) -> None:
    await world.submit(1, start_within_s=60.0)
    world.elapsed.advance(60.0)
    for keeper in (world.keeper, world.another(), world.another()):
        await turn(keeper)
    await world.project()
    assert (await world.job(1)).status is JobStatus.EXPIRED


async def test_the_same_is_not_said_again_at_once_while_the_projector_is_behind(world: World) -> None:
    await world.submit(1, start_within_s=60.0)
    world.elapsed.advance(60.0)
    for _ in range(3):
        await world.keeper.say()
    assert len(await world.logged()) == 2
    world.elapsed.advance(10.0)
    await world.keeper.say()
    assert len(await world.logged()) == 3


async def test_jobs_of_which_nobody_hears_hold_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timekeeper, "MOST", 2)
    for number in range(5):
        await world.submit(number, start_within_s=60.0 + number)
    world.elapsed.advance(100.0)
    while await world.keeper.say():  # and no projector tells the store of it
        pass
    assert {fact.job_id for fact in (await world.logged())[5:]} == {job_id(n) for n in range(5)}
    assert len(await world.logged()) == 10
    world.elapsed.advance(10.0)
    while await world.keeper.say():
        pass
    assert len(await world.logged()) == 15


async def test_who_is_due_longer_than_others_and_comes_later_is_told_at_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    async def lost(events: Sequence[JobEvent]) -> None:
        said.extend(event.job_id for event in events)

    monkeypatch.setattr(timekeeper, "MOST", 2)
    monkeypatch.setattr(world.events, "publish", lost)
    for number in range(4):
        await world.submit(number, start_within_s=60.0 + number)
    await world.queue.publish(CHANNEL, [encode_request(replace(request(9), start_within_s=62.5))])
    world.elapsed.advance(100.0)
    while await world.keeper.say():
        pass
    assert said == [job_id(n) for n in range(4)]
    await world.project()
    world.elapsed.advance(10.0)
    while await world.keeper.say():
        pass
    assert said[4:] == [job_id(n) for n in (0, 1, 2, 9, 3)]


class Failing(MemoryBlobs):
    """For as long as it is told to, for all jobs or for these."""

    def __init__(self, *job_ids: str) -> None:
        super().__init__()
        self.job_ids = job_ids
        self.tries = 0

    async def delete_job(self, tenant: str, job_id: str) -> None:
        if not self.job_ids or job_id in self.job_ids:
            self.tries += 1
            raise Unavailable("the bucket is away")
        await super().delete_job(tenant, job_id)


async def test_blobs_that_cannot_be_deleted_now_are_deleted_later_and_hold_up_no_expiry(world: World) -> None:
    await finished(world, 1, retain_s=60.0)
    await world.submit(2, start_within_s=62.0)
    blobless = world.another(Failing())
    world.elapsed.advance(60.0)
    await turn(blobless)
    await world.project()
    world.elapsed.advance(2.0)
    await turn(blobless)
    await world.project()
    assert (await world.job(2)).status is JobStatus.EXPIRED
    assert world.blobs.blobs != {}
    await world.settles()
    assert world.blobs.blobs == {}


async def test_blobs_that_can_never_be_deleted_hold_up_no_other_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeper, "MOST", 2)
    monkeypatch.setattr(timekeeper, "SWEPT_AT_ONCE", 2)
    world.blobs = blobs = Failing(*(job_id(n) for n in (1, 2, 3)))
    world.keeper = world.another()
    for number in range(1, 6):
        await finished(world, number, retain_s=60.0)
    with structlog.testing.capture_logs() as logs:
        for _ in range(6):
            await world.passes(60.0)
        assert {name.split("/")[1] for name in blobs.blobs} == {job_id(n) for n in (1, 2, 3)}
        assert [job.id for job in await world.store.unswept(9)] == [job_id(n) for n in (1, 2, 3)]
        tries = blobs.tries
        for _ in range(9):
            await world.keeper.sweep()
        assert blobs.tries <= tries + 3  # they rest for a while
        for _ in range(3):
            await world.passes(8 * DAY_S)
    assert [job.id for job in await world.store.tombstones(1e12, 9)] == [job_id(n) for n in (1, 2, 3)]
    assert [line["job"] for line in logs if line["event"] == "timekeeper.blobs_stay"] == [job_id(n) for n in (1, 2, 3)]
    blobs.job_ids = ("none",)
    for _ in range(3):
        await world.passes(60.0)
    assert blobs.blobs == {}
    assert await world.store.tombstones(1e12, 9) == []


class Hanging(MemoryBlobs):
    async def delete_job(self, tenant: str, job_id: str) -> None:
        await asyncio.Event().wait()


async def test_blobs_that_take_for_ever_hold_up_no_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await finished(world, 1, retain_s=60.0)
    await world.passes(0.0)
    world.keeper = world.another(Hanging())
    monkeypatch.setattr(world.keeper, "_plan", TimekeeperPlan(look_every_s=0.001))
    running = asyncio.create_task(world.keeper.run())
    world.elapsed.advance(60.0)
    async with asyncio.timeout(30.0):
        while (await world.job(1)).deleted_at is None:
            await world.project()
            await asyncio.sleep(0.001)
        await world.submit(2, start_within_s=60.0)
        world.elapsed.advance(60.0)
        while (await world.job(2)).status is not JobStatus.EXPIRED:
            await world.project()
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait({running})


async def test_it_goes_on_after_a_backend_was_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.submit(1, start_within_s=60.0)
    world.elapsed.advance(60.0)
    publish, tries = world.events.publish, 0

    async def failing(events: Sequence[JobEvent]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("the log is away", retry_after_s=0.001)
        await publish(events)

    monkeypatch.setattr(world.events, "publish", failing)
    monkeypatch.setattr(world.keeper, "_plan", TimekeeperPlan(look_every_s=0.001))
    running = asyncio.create_task(world.keeper.run())
    async with asyncio.timeout(30.0):
        while (await world.job(1)).status is not JobStatus.EXPIRED:
            await world.project()
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait({running})


async def test_what_was_deleted_cannot_be_fetched(world: World) -> None:
    await world.submit(1, retain_s=60.0)
    ref = await world.blobs.put(TENANT, job_id(1), b"large")
    await world.hears(succeeded(1, Payload(media_type=JSON, blob=ref)))
    await world.passes(60.0)
    with pytest.raises(BlobDamaged):
        await world.blobs.get(ref)


class Killed(Exception):
    """Stands in for a death: what is written so far is written."""


@pytest.mark.parametrize(
    "point",
    [
        "scheduler.before_publish",
        "scheduler.after_publish",
        "scheduler.before_sweep",
        "scheduler.blobs_deleted",
        "scheduler.after_sweep",
    ],
)
async def test_whoever_dies_anywhere_the_next_one_ends_it(world: World, point: str) -> None:
    await finished(world, 1, retain_s=60.0)
    await world.submit(2, start_within_s=60.0)
    world.elapsed.advance(60.0)

    def die(name: str) -> None:
        if name == point:
            raise Killed(name)

    crash.arm(die)
    try:
        with pytest.raises(Killed):
            await world.settles()
    finally:
        crash.arm(None)
    world.keeper = world.another()
    await world.settles()
    assert (await world.job(1)).deleted_at is not None
    assert (await world.job(2)).status is JobStatus.EXPIRED
    assert world.blobs.blobs == {}
    assert await world.store.unswept(9) == []
