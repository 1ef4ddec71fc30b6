"""The tables are emptied and come back the same, byte for byte, whoever dies, helps or writes meanwhile."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from forebay.adapters.memory import MemoryEventLog, MemoryLog, MemoryQueue, MemoryStore
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.core.delivery import DeliveryEvent, DeliveryEventKind, DeliveryStatus, delivery_id
from forebay.core.errors import Unavailable
from forebay.core.event import BatchLine, EventKind, JobEvent, JobRequest, Remains
from forebay.core.fact import Event
from forebay.core.job import JobStatus
from forebay.core.job_batch import BatchEvent, BatchEventKind, RejectedLine
from forebay.core.message import Channel, Message
from forebay.core.payload import JSON, BlobRef, Payload
from forebay.core.webhook import WebhookEvent, WebhookTarget
from forebay.core.wire import encode_request
from forebay.ports.event_log import EventLog, LogBatch
from forebay.ports.queue import Durability, Queue
from forebay.ports.store import JobQuery, ResultStore
from forebay.projector import Progress, Projector, projector, rebuild
from forebay.projector.projector import READ_LIMIT
from forebay.telemetry.metrics import Metrics
from forebay.testing.samples import TENANT, emitted, event, failed, job_id, progressed, request, succeeded

LONG_S = 30.0
CHANNEL = Channel("sample", "normal")

KEYS = {
    "jobs": "tenant, id",
    "results": "tenant, id",
    "partials": "tenant, id, attempt, last",
    "batches": "tenant, id",
    "rejected_lines": "tenant, batch, line",
    "deliveries": "tenant, job_id, id",
    "held_outputs": "tenant, job_id, attempt, first",
    "positions": "source",
}

COUNTS = """
SELECT model, lane, sum(waiting), sum(running) FROM queue_counts GROUP BY model, lane
HAVING sum(waiting) <> 0 OR sum(running) <> 0 ORDER BY model, lane
"""
OUTSTANDING = "SELECT tenant, sum(jobs) FROM outstanding GROUP BY tenant HAVING sum(jobs) <> 0 ORDER BY tenant"

TARGETS = (WebhookTarget(url="https://one.example/hook"), WebhookTarget(endpoint="ep_2", events=tuple(WebhookEvent)))

Tables = Mapping[str, Sequence[tuple[Any, ...]]]


def in_blob(number: int) -> Payload:
    sha256 = f"{number:064x}"
    blob = BlobRef(name=f"{TENANT}/{job_id(number)}/{sha256}", size_bytes=10**7, sha256=sha256)
    return Payload(media_type="image/png", blob=blob)


def request_of(number: int) -> JobRequest:
    """Every other one is the line of a batch, and every third tells of itself."""
    line = BatchLine(batch_id=f"batch {number // 20}", number=number + 1) if number % 2 else None
    webhooks = TARGETS if number % 3 == 0 else ()
    return replace(request(number, metadata={"n": number, "a": [1.5, "é", None]}), line=line, webhooks=webhooks)


def batch_of(start: int, end: int) -> Iterator[BatchEvent]:
    """What is said of the batches of these jobs."""
    for number in range(start // 20, -(-end // 20)):
        facts: Any = {"tenant": TENANT, "batch_id": f"batch {number}", "at": float(number + 1)}
        mistake = RejectedLine(line=20 * number + 1, code="malformed_json", message="no JSON")
        yield BatchEvent(kind=BatchEventKind.OPENED, model="sample", **facts)
        yield BatchEvent(kind=BatchEventKind.LINES, lines=20 * number + 20, accepted=10, rejected=(mistake,), **facts)
        yield BatchEvent(kind=BatchEventKind.SEALED, lines=20 * number + 20, **facts)


def deleted(number: int) -> JobEvent:
    """Of one that has succeeded; for some of them it is remembered which line of a batch it was."""
    done = succeeded(number, Payload(media_type=JSON, data=b"")).at
    wanted = request_of(number)
    remains = Remains(status=EventKind.SUCCEEDED, created_at=wanted.accepted_at, finished_at=done, line=wanted.line)
    return JobEvent(tenant=TENANT, job_id=job_id(number), kind=EventKind.DELETED, at=done + 60.0, remains=remains)


def tried(number: int, about: str, attempt: int, outcome: DeliveryStatus) -> DeliveryEvent:
    return DeliveryEvent(
        tenant=TENANT,
        job_id=job_id(number),
        delivery_id=delivery_id(TENANT, job_id(number), about, TARGETS[1]),
        kind=DeliveryEventKind.TRIED,
        at=1e9 + attempt,
        number=attempt,
        outcome=outcome,
        next_at=2e9 if outcome is DeliveryStatus.PENDING else None,
    )


class World(ABC):
    """A log and a store, and what lies in the store."""

    def __init__(self, queue: Queue, events: EventLog, store: ResultStore) -> None:
        self.queue = queue
        self.events = events
        self.store = store
        self.metrics = Metrics()

    @abstractmethod
    async def tables(self) -> Tables:
        """Every column of every row of every derived table, in the order of the keys; of counts the sums."""

    async def fill(self, start: int, end: int) -> None:
        """Jobs in every state, some of whose events come before their request; also a record that nobody can read."""
        numbers = range(start, end)
        await self.say(*(event(n, EventKind.STARTED) for n in numbers if n % 7 == 0))
        messages = [encode_request(request_of(n)) for n in numbers]
        unreadable = replace(messages[0], headers={**messages[0].headers, "ce_time": "never"})
        await self.queue.publish(CHANNEL, [unreadable, *messages])
        await self.say(*(event(n, EventKind.STARTED) for n in numbers if n % 5))
        talking = [n for n in numbers if n % 24 in (3, 6) and n % 5]
        for said in (
            [progressed(n, 0.5, sequence=1) for n in talking],
            [emitted(n, n, "é") for n in talking],
            [event(n, EventKind.STARTED, attempt=2) for n in talking if n % 2],
            [emitted(n, n, first=2) for n in talking],
            [emitted(n, None, attempt=2) for n in talking if n % 2],
        ):
            await self.say(*said)
        for finished in (
            [succeeded(n, Payload(media_type=JSON, data=b"[%d]" % n)) for n in numbers if n % 5 == 1],
            [failed(n) for n in numbers if n % 5 == 2],
            [succeeded(n, in_blob(n)) for n in numbers if n % 5 == 3],
            [event(n, EventKind.CANCELED) for n in numbers if n % 35 == 3],
            [tried(n, "started", 1, DeliveryStatus.DELIVERED) for n in numbers if n % 6 == 3],
            [tried(n, "completed", 1, DeliveryStatus.PENDING) for n in numbers if n % 12 == 9],
            [deleted(n) for n in numbers if n % 5 == 1 and n % 9 in (3, 4)],
            [tried(n, "completed", 2, DeliveryStatus.PARKED) for n in numbers if n % 12 == 9 and n % 8 < 4],
        ):
            await self.say(*finished)
        await self.say(*batch_of(start, end))

    async def say(self, *events: Event) -> None:
        await self.events.publish(events)

    async def project_all(self) -> None:
        """However slow the machine is: a projector that is stopped has so much time and no more."""
        while True:
            running = Projector(self.events, self.store, self.metrics)
            running.stop()
            await running.run()
            if not any((await self.events.behind(await self.store.positions())).values()):
                return

    @asynccontextmanager
    async def projecting(self) -> AsyncIterator[None]:
        running = Projector(self.events, self.store, self.metrics)
        task = asyncio.create_task(running.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def rebuild(self) -> list[Progress]:
        seen: list[Progress] = []
        async with asyncio.timeout(LONG_S):
            await rebuild(self.events, self.store, self.metrics, seen.append)
        return seen

    async def is_caught_up(self) -> None:
        async with asyncio.timeout(LONG_S):
            while True:
                if await self.store.positions() == await self.events.ends():
                    return
                await asyncio.sleep(0.002)

    async def reaches(self, number: int, status: JobStatus) -> None:
        async with asyncio.timeout(LONG_S):
            while True:
                with suppress(Unavailable):  # a rebuild goes on; asked again
                    job = await self.store.get(TENANT, job_id(number))
                    if job is not None and job.status is status:
                        return
                await asyncio.sleep(0.002)

    @property
    def applied(self) -> float:
        return self.metrics.registry.get_sample_value("forebay_projector_facts_total") or 0.0


class MemoryWorld(World):
    async def tables(self) -> Tables:
        assert isinstance(self.store, MemoryStore)
        jobs, partials = self.store._jobs, self.store._partials
        batches, rejected = self.store._batches, self.store._rejected
        return {
            "jobs": [(jobs[key],) for key in sorted(jobs)],
            "partials": [(key, *partials[key]) for key in sorted(partials)],
            "deliveries": sorted(self.store._outbox._rows.items()),
            "batches": [(batches[key], rejected.get(key)) for key in sorted(batches)],
            "positions": sorted(self.store._positions.items()),
        }


class SqliteWorld(World):
    database: Database

    async def tables(self) -> Tables:
        kept = {name: self.database.read(f"SELECT * FROM {name} ORDER BY {key}") for name, key in KEYS.items()}
        counts = {"queue_counts": self.database.read(COUNTS), "outstanding": self.database.read(OUTSTANDING)}
        return {**kept, **counts}


class PostgresWorld(World):
    dsn: str

    async def tables(self) -> Tables:
        reading = await asyncpg.connect(self.dsn)
        try:
            kept = {
                name: [tuple(row) for row in await reading.fetch(f"SELECT * FROM forebay.{name} ORDER BY {key}")]
                for name, key in {**KEYS, "waiting": "id"}.items()
            }
            counts = {
                name: [tuple(row) for row in await reading.fetch(sql.replace("FROM ", "FROM forebay."))]
                for name, sql in (("queue_counts", COUNTS), ("outstanding", OUTSTANDING))
            }
            return {**kept, **counts}
        finally:
            await reading.close()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        log = MemoryLog()
        yield MemoryWorld(MemoryQueue(log), MemoryEventLog(log), MemoryStore())
        return
    database = Database(tmp_path, durability=Durability.PROCESS).open()
    queue, events = SqliteQueue(database), SqliteEventLog(database)
    if request.param == "sqlite":
        on_sqlite = SqliteWorld(queue, events, SqliteStore(database))
        on_sqlite.database = database
        yield on_sqlite
    else:
        dsn = request.getfixturevalue("postgres_dsn")
        store = await PostgresStore.open(dsn)
        on_postgres = PostgresWorld(queue, events, store)
        on_postgres.dsn = dsn
        yield on_postgres
        await store.close()
    await database.close()


class Wrapped(EventLog):
    """Another log; a test overrides what it wants to be different."""

    def __init__(self, sound: EventLog) -> None:
        self.sound = sound

    async def publish(self, events: Sequence[Event]) -> None:
        await self.sound.publish(events)

    async def now(self) -> float:
        return await self.sound.now()

    def sources(self) -> tuple[str, ...]:
        return self.sound.sources()

    async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
        return await self.sound.read(after, limit, wait_s)

    async def at(self, places: Sequence[str]) -> list[Message | None]:
        return await self.sound.at(places)

    async def ends(self) -> Mapping[str, str]:
        return await self.sound.ends()

    async def behind(self, after: Mapping[str, str]) -> Mapping[str, int]:
        return await self.sound.behind(after)


# ------------------------------------------------------------------------------------------------------------ the same


async def test_the_same_rows_come_back(world: World) -> None:
    await world.fill(0, 700)
    await world.project_all()
    before, queues = await world.tables(), await world.store.queues()
    assert len(before["partials"]) > 40
    assert (len(before["jobs"]), len(before["batches"])) == (700, 35)
    assert len(before["deliveries"]) > 300
    await world.rebuild()
    assert await world.tables() == before
    assert await world.store.queues() == queues
    assert [(one.waiting, one.running) for one in queues] == [(120, 160)]
    assert await world.store.rebuilding() is None


async def test_what_was_wrong_in_a_table_is_right_again(world: World) -> None:
    """The rebuild reads the log and nothing else."""
    await world.fill(0, 70)
    await world.project_all()
    before = await world.tables()
    stranger = LogBatch(source="strange", start="", end="1", facts=(request(999), failed(70), failed(0, attempt=9)))
    await world.store.project([stranger])
    assert await world.tables() != before
    await world.rebuild()
    assert await world.tables() == before


async def test_an_empty_log_is_rebuilt_at_once(world: World) -> None:
    assert set(await world.rebuild()) == {Progress(0, 0)}
    assert (await world.store.list_jobs(JobQuery(tenant=TENANT, limit=9, look=9))).jobs == []


async def test_jobs_are_hidden_until_all_are_there(world: World) -> None:
    await world.fill(0, READ_LIMIT)
    await world.project_all()
    seen: list[str] = []

    class Looking(Wrapped):
        async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
            if await world.store.rebuilding() is not None:
                with pytest.raises(Unavailable) as refused:
                    await world.store.get(TENANT, job_id(1))
                seen.append(refused.value.code)
            return await super().read(after, min(limit, 100), 0.0)

    await rebuild(Looking(world.events), world.store, world.metrics)
    assert len(seen) > 10
    assert set(seen) == {"rebuilding"}
    assert await world.store.get(TENANT, job_id(1)) is not None


async def test_the_progress_grows_to_the_whole(world: World) -> None:
    await world.fill(0, 2 * READ_LIMIT)
    await world.project_all()
    total = sum((await world.events.behind({})).values())
    seen = await world.rebuild()
    assert seen[0] == Progress(0, total)
    assert seen[-1] == Progress(total, total)
    assert [one.done for one in seen] == sorted(one.done for one in seen)


# --------------------------------------------------------------------------------------------------------- interrupted


class Dying(Wrapped):
    """Whoever reads a third time is stopped there."""

    reads = 0

    async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
        self.reads += 1
        if self.reads == 3:
            raise RuntimeError("killed")
        return await super().read(after, limit, wait_s)


async def test_stopped_in_the_middle_it_goes_on_where_it_was(world: World) -> None:
    await world.fill(0, 2 * READ_LIMIT)
    await world.project_all()
    before, facts = await world.tables(), world.applied
    with pytest.raises(RuntimeError, match="killed"):
        await rebuild(Dying(world.events), world.store, world.metrics)
    assert await world.store.rebuilding() is not None
    assert len((await world.tables())["jobs"]) < len(before["jobs"])
    seen = await world.rebuild()
    assert seen[0].done == 2 * READ_LIMIT
    assert await world.tables() == before
    assert world.applied == 2 * facts


async def test_a_projector_that_was_idle_goes_on_with_a_rebuild_that_nobody_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "READ_WAIT_S", 0.01)
    async with world.projecting():
        await world.fill(0, 70)
        await world.is_caught_up()
        before = await world.tables()
        await world.store.begin_rebuild(world.events.ends)
        await world.reaches(66, JobStatus.SUCCEEDED)
    assert await world.tables() == before


async def test_it_waits_for_a_backend_that_is_away(world: World) -> None:
    class Away(Wrapped):
        left = 5

        async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
            self.left -= 1
            if self.left >= 0:
                raise Unavailable("the log is away", retry_after_s=0.001)
            return await super().read(after, limit, wait_s)

    await world.fill(0, 70)
    await world.project_all()
    before = await world.tables()
    await rebuild(Away(world.events), world.store, world.metrics)
    assert await world.tables() == before


# -------------------------------------------------------------------------------------------------------------- others


async def test_running_projectors_help_and_apply_nothing_twice(world: World) -> None:
    await world.fill(0, 2 * READ_LIMIT)
    await world.project_all()
    before, facts = await world.tables(), world.applied
    async with world.projecting(), world.projecting():
        await world.rebuild()
    assert await world.tables() == before
    assert world.applied == 2 * facts


async def test_deleted_five_times_under_way_and_nothing_is_missing(world: World) -> None:
    async def submit() -> None:
        for start in range(0, 1000, 20):
            await world.fill(start, start + 20)
            await asyncio.sleep(0)

    async with world.projecting(), asyncio.TaskGroup() as tasks:
        submitting = tasks.create_task(submit())
        for _ in range(5):
            await world.rebuild()
        await submitting
    await world.project_all()
    there = await world.tables()
    assert len(there["jobs"]) == 1000
    await world.rebuild()
    assert await world.tables() == there


async def test_it_ends_although_the_log_never_does(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "REBUILD_SEEN_EVERY_S", 0.0)

    class Endless(Wrapped):
        """Whoever reads finds that more has come."""

        number = 10_000

        async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
            self.number += 1
            await self.publish([event(self.number, EventKind.STARTED)])
            await asyncio.sleep(0)  # a log in memory never waits by itself
            return await super().read(after, limit, wait_s)

    await world.fill(0, 70)
    await world.project_all()
    async with asyncio.timeout(LONG_S):
        await rebuild(Endless(world.events), world.store, world.metrics)
    assert await world.store.get(TENANT, job_id(66)) is not None


async def test_what_comes_meanwhile_does_not_pass_for_what_is_left(world: World) -> None:
    class Growing(Wrapped):
        """A thousand more stand in it after each time that somebody has counted."""

        number = 10_000

        async def behind(self, after: Mapping[str, str]) -> Mapping[str, int]:
            counted = await super().behind(after)
            self.number += 1000
            await self.publish([event(n, EventKind.STARTED) for n in range(self.number - 1000, self.number)])
            return counted

        async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
            return await super().read(after, min(limit, 50), wait_s)

    await world.fill(0, 70)
    until = await world.events.ends()
    await world.store.begin_rebuild(world.events.ends)
    running = Projector(Growing(world.events), world.store, world.metrics)
    await running._end_rebuild()  # nothing is applied yet, so nothing may be over
    assert await world.store.rebuilding() == until
