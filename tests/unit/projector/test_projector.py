"""Whatever stands in the log becomes visible, once, whoever stops, stumbles or overtakes on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from forebay.adapters.memory import MemoryEventLog, MemoryLog, MemoryQueue, MemoryStore
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.adapters.sqlite.event_log import BATCH_BYTES
from forebay.core.delivery import DeliveryEvent, WebhookDelivery
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.job import Job, JobStatus
from forebay.core.job_batch import JobBatch, RejectedLine
from forebay.core.message import Channel
from forebay.core.partials import Partial
from forebay.core.payload import JSON, Payload
from forebay.core.queues import LaneCount
from forebay.core.quota import Use
from forebay.core.reservation import Reservation
from forebay.ports.due import FRONT, DuePlace
from forebay.ports.event_log import EventLog, LogBatch
from forebay.ports.job_batches import BatchPage, BatchPlace
from forebay.ports.outbox import DeliveryPage, DeliveryQuery, OutboxCount
from forebay.ports.queue import Durability, Queue
from forebay.ports.reservations import Claim
from forebay.ports.store import JobPage, JobQuery, ResultStore, Subscription
from forebay.projector import Projector
from forebay.projector import projector as projector_module
from forebay.projector.projector import READ_LIMIT, READ_WAIT_S
from forebay.telemetry.metrics import Metrics
from forebay.testing.samples import ACCEPTED_AT, TENANT, event, failed, job_id, message, succeeded

LONG_S = 30.0
OUTPUT = Payload(media_type=JSON, data=b"1")


class World:
    """A backend's log and store, and projectors between them."""

    def __init__(self, queue: Queue, events: EventLog, store: ResultStore) -> None:
        self.queue = queue
        self.events = events
        self.store = Stumbling(store)
        self.metrics = Metrics()

    async def accept(self, *numbers: int) -> None:
        await self.queue.publish(Channel("sample", "normal"), [message(n) for n in numbers])

    async def say(self, *events: JobEvent) -> None:
        await self.events.publish(events)

    def projector(self) -> Projector:
        return Projector(self.events, self.store, self.metrics, clock=lambda: ACCEPTED_AT + 100.0)

    @asynccontextmanager
    async def projecting(self) -> AsyncIterator[Projector]:
        """A running projector, stopped at the end."""
        projector = self.projector()
        running = asyncio.create_task(projector.run())
        try:
            yield projector
            projector.stop()
            async with asyncio.timeout(LONG_S):
                await running
        finally:
            running.cancel()
            await asyncio.wait({running})

    async def project_all(self) -> None:
        """What the log holds now."""
        async with self.projecting():
            pass

    async def status(self, number: int) -> JobStatus | None:
        job = await self.store.get(TENANT, job_id(number))
        return None if job is None else job.status

    async def reaches(self, number: int, status: JobStatus) -> None:
        deadline = time.monotonic() + LONG_S
        while await self.status(number) is not status:
            assert time.monotonic() < deadline, f"not {status} after {LONG_S:g} s"
            await asyncio.sleep(0.002)

    async def counts(self, name: str, number: int) -> None:
        deadline = time.monotonic() + LONG_S
        while self.count(name) < number:
            assert time.monotonic() < deadline, f"{name} not {number} after {LONG_S:g} s"
            await asyncio.sleep(0.002)

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"forebay_{name}_total", labels) or 0.0


async def nothing(batches: Sequence[LogBatch]) -> None:
    """Before a projection."""


class Stumbling(ResultStore):
    """Another store that raises Unavailable the next `away` times; `before` runs before each projection."""

    def __init__(self, store: ResultStore) -> None:
        self.sound = store
        self.away = 0
        self.before: Callable[[Sequence[LogBatch]], Awaitable[object]] = nothing

    def _stumble(self) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("the store is away", retry_after_s=0.001)

    async def project(self, batches: Sequence[LogBatch]) -> list[Job] | None:
        await self.before(batches)
        self._stumble()
        return await self.sound.project(batches)

    async def position(self, source: str) -> str:
        self._stumble()
        return await self.sound.position(source)

    async def positions(self) -> Mapping[str, str]:
        self._stumble()
        return await self.sound.positions()

    async def begin_rebuild(self, ends: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        await self.sound.begin_rebuild(ends)

    async def rebuilding(self) -> Mapping[str, str] | None:
        self._stumble()
        return await self.sound.rebuilding()

    async def end_rebuild(self) -> None:
        await self.sound.end_rebuild()

    async def get(self, tenant: str, job_id: str) -> Job | None:
        return await self.sound.get(tenant, job_id)

    async def partials(self, tenant: str, job_id: str, attempt: int, chunk: int, limit: int) -> list[Partial]:
        return await self.sound.partials(tenant, job_id, attempt, chunk, limit)

    async def reserve(self, wanted: Reservation, *, holder: str, lease_s: float) -> Claim:
        return await self.sound.reserve(wanted, holder=holder, lease_s=lease_s)

    async def published(self, reservation: Reservation) -> None:
        await self.sound.published(reservation)

    async def release(self, reservation: Reservation, *, holder: str) -> None:
        await self.sound.release(reservation, holder=holder)

    async def withdraw(self, reservation: Reservation, *, holder: str) -> None:
        await self.sound.withdraw(reservation, holder=holder)

    async def reserved(self, tenant: str, key: str) -> Reservation | None:
        return await self.sound.reserved(tenant, key)

    async def batch(self, tenant: str, batch_id: str) -> JobBatch | None:
        return await self.sound.batch(tenant, batch_id)

    async def list_batches(self, tenant: str, *, after: BatchPlace | None, limit: int) -> BatchPage:
        return await self.sound.list_batches(tenant, after=after, limit=limit)

    async def lines(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job | RejectedLine]:
        return await self.sound.lines(tenant, batch_id, after=after, limit=limit)

    async def unfinished(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job]:
        return await self.sound.unfinished(tenant, batch_id, after=after, limit=limit)

    async def published_of(self, tenant: str, keys: Sequence[str]) -> frozenset[str]:
        return await self.sound.published_of(tenant, keys)

    async def list_jobs(self, query: JobQuery) -> JobPage:
        return await self.sound.list_jobs(query)

    async def queues(self) -> list[LaneCount]:
        return await self.sound.queues()

    async def ahead(self, job: Job, look: int) -> int:
        return await self.sound.ahead(job, look)

    async def used(self, tenant: str, *, minute_from: float, day_from: float, most: Use) -> Use:
        return await self.sound.used(tenant, minute_from=minute_from, day_from=day_from, most=most)

    async def due(self, now: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self.sound.due(now, limit, after)

    async def unswept(self, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self.sound.unswept(limit, after)

    async def swept(self, tombstones: Sequence[Job]) -> None:
        await self.sound.swept(tombstones)

    async def tombstones(self, before: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self.sound.tombstones(before, limit, after)

    async def forget(self, tombstones: Sequence[Job]) -> None:
        await self.sound.forget(tombstones)

    async def forget_unpublished(self, before: float) -> None:
        await self.sound.forget_unpublished(before)

    async def claim(
        self,
        now: float,
        *,
        holder: str,
        until: float,
        limit: int,
        each: int,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> list[WebhookDelivery]:
        return await self.sound.claim(
            now, holder=holder, until=until, limit=limit, each=each, only=only, without=without
        )

    async def claim_late(self, now: float, *, holder: str, until: float, limit: int) -> list[WebhookDelivery]:
        return await self.sound.claim_late(now, holder=holder, until=until, limit=limit)

    async def settle(self, holder: str, events: Sequence[DeliveryEvent]) -> None:
        await self.sound.settle(holder, events)

    async def give_back(self, holder: str) -> None:
        await self.sound.give_back(holder)

    async def deliveries(self, tenant: str, job_id: str, limit: int) -> list[WebhookDelivery]:
        return await self.sound.deliveries(tenant, job_id, limit)

    async def delivery(self, tenant: str, job_id: str, delivery_id: str) -> WebhookDelivery | None:
        return await self.sound.delivery(tenant, job_id, delivery_id)

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        return await self.sound.list_deliveries(query)

    async def outbox(self) -> OutboxCount:
        return await self.sound.outbox()

    def subscribe(self, tenant: str, job_id: str) -> AbstractAsyncContextManager[Subscription]:
        return self.sound.subscribe(tenant, job_id)


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        log = MemoryLog()
        yield World(MemoryQueue(log), MemoryEventLog(log), MemoryStore())
        return
    database = Database(tmp_path, durability=Durability.PROCESS).open()
    yield World(SqliteQueue(database), SqliteEventLog(database), SqliteStore(database))
    await database.close()


# ------------------------------------------------------------------------------------------------------------- visible


async def test_what_is_published_becomes_visible(world: World) -> None:
    async with world.projecting():
        await world.accept(1)
        await world.reaches(1, JobStatus.QUEUED)
        await world.say(event(1, EventKind.STARTED))
        await world.reaches(1, JobStatus.RUNNING)
        await world.say(succeeded(1, OUTPUT))
        await world.reaches(1, JobStatus.SUCCEEDED)


async def test_what_was_published_before_the_start_becomes_visible(world: World) -> None:
    await world.accept(1)
    async with world.projecting():
        await world.reaches(1, JobStatus.QUEUED)


async def test_a_log_longer_than_one_read_is_applied_to_its_end(world: World) -> None:
    await world.accept(*range(2 * READ_LIMIT + 1))
    async with world.projecting():
        await world.reaches(2 * READ_LIMIT, JobStatus.QUEUED)


async def test_a_stop_applies_what_the_log_holds(world: World) -> None:
    await world.accept(*range(2 * READ_LIMIT + 1))
    await world.project_all()
    assert await world.status(2 * READ_LIMIT) is JobStatus.QUEUED


@pytest.mark.parametrize("moments", [1, 2, 3, 5, 8])
async def test_a_stop_during_a_projection_applies_what_the_log_holds(moments: int, world: World) -> None:
    await world.accept(*range(READ_LIMIT + 1))
    projecting = asyncio.Event()

    async def note(batches: Sequence[LogBatch]) -> None:
        projecting.set()

    world.store.before = note
    async with world.projecting():
        await projecting.wait()
        for _ in range(moments):
            await asyncio.sleep(0)
    assert await world.status(READ_LIMIT) is JobStatus.QUEUED


async def test_a_stop_ends_though_the_log_grows_as_fast_as_it_is_read(world: World) -> None:
    projected = 0

    async def grow(batches: Sequence[LogBatch]) -> None:
        nonlocal projected
        projected += 1
        await world.say(event(1, EventKind.STARTED))

    await world.accept(1)
    world.store.before = grow
    await world.project_all()
    assert projected < 100
    assert await world.status(1) is not None


async def test_a_stop_does_not_wait_for_a_store_that_gets_nowhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "DRAIN_WITHIN_S", 0.0)
    await world.accept(*range(2 * READ_LIMIT + 1))
    projector = world.projector()
    projector.stop()
    async with asyncio.timeout(LONG_S):
        await projector.run()
    assert world.count("projector_facts") == READ_LIMIT


async def test_the_next_projector_goes_on_where_the_last_one_stopped(world: World) -> None:
    await world.accept(1, 2)
    await world.project_all()
    await world.accept(3)
    await world.project_all()
    assert (world.count("projector_facts"), await world.status(3)) == (3, JobStatus.QUEUED)


async def test_a_record_that_nobody_can_read_stops_nothing(world: World) -> None:
    await world.queue.publish(Channel("sample", "normal"), [structs.replace(message(1), headers={})])
    await world.accept(2)
    await world.project_all()
    assert (world.count("projector_malformed"), await world.status(2)) == (1, JobStatus.QUEUED)


# ------------------------------------------------------------------------------------------------------------ overtaken


def overtake_once(world: World) -> None:
    """Another projector applies the next batch just before this one does."""

    async def overtake(batches: Sequence[LogBatch]) -> None:
        world.store.before = nothing
        assert await world.store.sound.project(batches)

    world.store.before = overtake


async def test_a_projector_that_was_overtaken_goes_on_from_where_the_other_is(world: World) -> None:
    await world.accept(1, 2)
    async with world.projecting():
        await world.reaches(2, JobStatus.QUEUED)
        overtake_once(world)
        await world.say(succeeded(1, OUTPUT))
        await world.reaches(1, JobStatus.SUCCEEDED)
        await world.say(succeeded(2, OUTPUT))
        await world.reaches(2, JobStatus.SUCCEEDED)


async def test_what_another_projector_applied_is_not_counted(world: World) -> None:
    await world.accept(1)
    overtake_once(world)
    await world.project_all()
    assert world.count("projector_facts") == 0


async def test_a_projector_that_is_overtaken_at_its_stop_still_applies_the_rest(world: World) -> None:
    await world.accept(*range(READ_LIMIT + 1))
    overtake_once(world)
    await world.project_all()
    assert await world.status(READ_LIMIT) is JobStatus.QUEUED


async def test_two_projectors_apply_every_fact_once(world: World) -> None:
    async with world.projecting(), world.projecting():
        for n in range(50):
            await world.accept(n)
            await world.say(succeeded(n, OUTPUT))
        await world.counts("projector_facts", 100)
    assert world.count("projector_facts") == 100


# ------------------------------------------------------------------------------------------------------- backends away


async def test_a_store_that_was_away_is_written_when_it_is_back(world: World) -> None:
    await world.accept(1)
    world.store.away = 3
    async with world.projecting():
        await world.reaches(1, JobStatus.QUEUED)


async def test_a_store_that_goes_away_on_the_way_loses_nothing(world: World) -> None:
    async with world.projecting():
        await world.accept(1)
        await world.reaches(1, JobStatus.QUEUED)
        world.store.away = 2
        await world.say(succeeded(1, OUTPUT))
        await world.reaches(1, JobStatus.SUCCEEDED)
    assert world.count("projector_facts") == 2


async def test_a_store_that_is_away_does_not_hold_up_a_stop(world: World) -> None:
    await world.accept(1)
    world.store.away = 1_000_000
    await world.project_all()
    assert await world.status(1) is None


# -------------------------------------------------------------------------------------------------------------- counted


async def test_finished_jobs_are_counted_by_model_and_status(world: World) -> None:
    await world.accept(1, 2, 3)
    await world.say(succeeded(1, OUTPUT), succeeded(2, OUTPUT), failed(3))
    await world.project_all()
    assert world.count("jobs_finished", model="sample", status="succeeded") == 2
    assert world.count("jobs_finished", model="sample", status="failed") == 1


async def test_failed_jobs_are_counted_by_code(world: World) -> None:
    await world.accept(1)
    await world.say(failed(1))
    await world.project_all()
    assert world.count("jobs_failed", model="sample", code="model_failed") == 1


async def test_a_second_final_event_is_counted_as_ignored(world: World) -> None:
    await world.accept(1)
    await world.say(succeeded(1, OUTPUT), failed(1))
    await world.project_all()
    assert (world.count("projector_ignored"), await world.status(1)) == (1, JobStatus.SUCCEEDED)


async def test_a_second_final_event_that_comes_later_is_counted_as_ignored(world: World) -> None:
    await world.accept(1)
    await world.say(succeeded(1, OUTPUT))
    await world.project_all()
    await world.say(failed(1))
    await world.project_all()
    assert (world.count("projector_ignored"), world.count("jobs_failed", model="sample", code="model_failed")) == (1, 0)


async def test_a_job_that_is_not_final_is_not_finished(world: World) -> None:
    await world.accept(1)
    await world.say(event(1, EventKind.STARTED))
    await world.project_all()
    assert world.count("jobs_finished", model="sample", status="running") == 0


# ------------------------------------------------------------------------------------------------------------------ lag


async def test_a_projector_at_the_end_of_the_log_does_not_lag(world: World) -> None:
    await world.accept(1)
    async with world.projecting() as projector:
        await world.reaches(1, JobStatus.QUEUED)
        await at_the_end(projector)
        await world.accept(2)
        await world.reaches(2, JobStatus.QUEUED)
        await at_the_end(projector)


async def at_the_end(projector: Projector) -> None:
    """Well before a read that waits for facts would give up."""
    deadline = time.monotonic() + READ_WAIT_S / 2
    while projector.lag_s() > 0.0:
        assert time.monotonic() < deadline, f"behind by {projector.lag_s():g} s"
        await asyncio.sleep(0.002)


async def lags(world: World, facts: int) -> list[float]:
    """What a projector says while it applies each batch of so many facts, and once it knows that there is no more."""
    seen: list[float] = []
    async with world.projecting() as projector:

        async def note(batches: Sequence[LogBatch]) -> None:
            seen.append(projector.lag_s())

        world.store.before = note
        await world.counts("projector_facts", facts)
        await at_the_end(projector)
        return [*seen, projector.lag_s()]


async def test_a_projector_behind_the_log_says_by_how_much(world: World) -> None:
    await world.accept(*[1] * READ_LIMIT, *[2] * READ_LIMIT, 3)
    assert await lags(world, 2 * READ_LIMIT + 1) == [99.0, 99.0, 98.0, 0.0]


async def test_a_projector_lags_too_when_batches_are_short_because_inputs_are_large(world: World) -> None:
    large = b" " * BATCH_BYTES
    messages = [structs.replace(message(number), value=large) for number in (1, 2, 3)]
    await world.queue.publish(Channel("sample", "normal"), messages)
    seen = await lags(world, len(messages))
    assert seen == ([99.0, 99.0, 98.0, 0.0] if isinstance(world.events, SqliteEventLog) else [99.0, 0.0])
