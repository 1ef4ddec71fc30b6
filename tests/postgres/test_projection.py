"""What projectors on one database do to each other: wait, try again, take over; never a wrong row."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from dev.postgres.server import Postgres
from forebay.adapters.postgres import PostgresStore, projection
from forebay.core import crash
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.payload import JSON, Payload
from forebay.testing.samples import TENANT, event, failed, job_id, request, succeeded
from forebay.testing.store_contract import Feeder, batch, folded

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

LONG_S = 30.0
OUTPUT = Payload(media_type=JSON, data=b"[1]")


async def wait_for_a_lock(sql: Connection) -> None:
    """Until some projector waits for what another has locked."""
    async with asyncio.timeout(LONG_S):
        while True:
            if await sql.fetch("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                return
            await asyncio.sleep(0.005)


async def test_a_job_that_another_has_inserted_meanwhile_is_met_and_not_overwritten(
    store: PostgresStore, other: PostgresStore, sql: Connection, postgres_dsn: str
) -> None:
    """Both have seen that there is no row. The other's is committed first."""
    rival = await asyncpg.connect(postgres_dsn)
    await rival.execute("BEGIN")
    await rival.execute(projection._INSERT_STUBS, [TENANT], [job_id(1)])
    await rival.execute("UPDATE forebay.jobs SET status = 'running', attempts = 1, started_at = 7, version = '3'")
    mine = asyncio.create_task(store.project([batch("requests", "", "1", request(0), request(1), request(2))]))
    await wait_for_a_lock(sql)
    await rival.execute("COMMIT")
    await rival.close()
    changed = await mine
    assert changed is not None
    assert [(job.id, job.status.value, job.attempts, job.model) for job in changed] == [
        (job_id(0), "queued", 0, "sample"),
        (job_id(1), "running", 1, "sample"),
        (job_id(2), "queued", 0, "sample"),
    ]
    for job in changed:
        assert await other.get(TENANT, job.id) == job


async def test_whoever_comes_second_waits_and_then_has_done_nothing(
    store: PostgresStore, sql: Connection, postgres_dsn: str
) -> None:
    feed = Feeder(store)
    await feed(request(1))
    rival = await asyncpg.connect(postgres_dsn)
    await rival.execute("BEGIN; UPDATE forebay.positions SET position = 'p2'")
    mine = asyncio.create_task(store.project([batch("log", "p1", "p9", failed(1))]))
    await wait_for_a_lock(sql)
    await rival.execute("COMMIT")
    await rival.close()
    assert await mine is None
    assert await store.get(TENANT, job_id(1)) == folded(request(1))


async def test_a_winner_that_gives_up_leaves_the_batch_to_the_second(
    store: PostgresStore, sql: Connection, postgres_dsn: str
) -> None:
    rival = await asyncpg.connect(postgres_dsn)
    await rival.execute("BEGIN; INSERT INTO forebay.positions VALUES ('log', 'p9')")
    mine = asyncio.create_task(store.project([batch("log", "", "p1", request(1))]))
    await wait_for_a_lock(sql)
    await rival.execute("ROLLBACK")
    await rival.close()
    assert await mine == [folded(request(1))]
    assert await store.positions() == {"log": "p1"}


@pytest.mark.parametrize("name", ["swept", "forget"])
async def test_tombstones_are_locked_in_the_order_in_which_projectors_lock_jobs(
    store: PostgresStore, sql: Connection, postgres_dsn: str, name: str
) -> None:
    await Feeder(store)(*(event(n, EventKind.DELETED, attempt=0) for n in (2, 1)))
    tombstones = await store.unswept(9)
    assert len(tombstones) == 2
    projector = await asyncpg.connect(postgres_dsn)
    await projector.execute("BEGIN")
    await projector.execute("SELECT FROM forebay.jobs WHERE id = $1 FOR UPDATE", job_id(1))
    mine = asyncio.create_task(getattr(store, name)(sorted(tombstones, key=lambda job: job.id, reverse=True)))
    await wait_for_a_lock(sql)
    await projector.execute("SELECT FROM forebay.jobs WHERE id = $1 FOR UPDATE NOWAIT", job_id(2))
    await projector.execute("COMMIT")
    await projector.close()
    await mine
    assert await store.unswept(9) == []


async def test_a_deadlock_with_somebody_else_is_tried_again(
    store: PostgresStore, sql: Connection, postgres_dsn: str
) -> None:
    """Ours go in one order; a person's statements need not."""
    await Feeder(store, "requests")(request(1), request(2))
    person = await asyncpg.connect(postgres_dsn)
    await person.execute("SET deadlock_timeout = '60s'; BEGIN")  # so that ours is the one that is ended
    lock = "SELECT FROM forebay.jobs WHERE id = $1 FOR UPDATE"
    await person.execute(lock, job_id(2))
    mine = asyncio.create_task(store.project([batch("events", "", "1", failed(1), failed(2))]))
    await wait_for_a_lock(sql)
    await person.execute(lock, job_id(1))
    await person.execute("COMMIT")
    await person.close()
    assert await mine == [folded(request(1), failed(1)), folded(request(2), failed(2))]


async def test_a_job_that_waits_again_may_still_be_counted_among_those_that_wait(
    store: PostgresStore, sql: Connection
) -> None:
    """As after an upgrade, if a projector of a version that does not know these rows has seen the job start."""
    feed = Feeder(store)
    await feed(request(1))
    [row] = await sql.fetch("SELECT * FROM forebay.waiting")
    await feed(event(1, EventKind.STARTED, attempt=1))
    await sql.execute("INSERT INTO forebay.waiting VALUES ($1, $2, $3, $4, $5)", *row)
    await feed(event(1, EventKind.QUEUED, attempt=1))
    assert await sql.fetch("SELECT * FROM forebay.waiting") == [row]


async def test_after_five_encounters_the_caller_is_told(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    met = 0

    async def meet(*arguments: object, **more: object) -> None:
        nonlocal met
        met += 1
        raise asyncpg.DeadlockDetectedError("met")

    monkeypatch.setattr(projection, "_apply", meet)
    with pytest.raises(Unavailable, match="5 transactions met"):
        await store.project([batch("log", "", "1", request(1))])
    assert met == 5
    monkeypatch.undo()
    assert await store.positions() == {}


async def test_a_projector_that_was_stopped_in_its_transaction_keeps_its_rows_from_nobody(
    store: PostgresStore, sql: Connection, postgres_dsn: str
) -> None:
    """Its process stands still between two statements. The server ends the transaction, and the other goes on."""
    stopped = await PostgresStore.open(postgres_dsn, idle_in_transaction_s=0.5)

    async def sleep_in_the_midst() -> None:
        async with stopped._database.borrow() as connection:
            await connection.execute("BEGIN")
            assert await projection._advance(connection, [batch("log", "", "late", request(1))])
            async with asyncio.timeout(LONG_S):
                assert await store.project([batch("log", "", "p1", request(1), failed(1))]) is not None
            await projection._apply(connection, [batch("log", "", "late", request(1))], may_be_new=True)

    with pytest.raises(Unavailable):
        await sleep_in_the_midst()
    assert await store.positions() == {"log": "p1"}
    assert await stopped.project([batch("log", "", "late", request(1))]) is None
    assert await store.get(TENANT, job_id(1)) == folded(request(1), failed(1))
    await stopped.close()


@pytest.mark.parametrize("point", ["postgres.before_commit", "postgres.after_commit"])
async def test_a_batch_is_there_whole_or_not_at_all(store: PostgresStore, other: PostgresStore, point: str) -> None:
    def die(name: str) -> None:
        if name == point:
            crash.arm(None)
            raise RuntimeError("killed")

    facts = (request(1), succeeded(1, OUTPUT))
    crash.arm(die)
    try:
        with pytest.raises(RuntimeError, match="killed"):
            await store.project([batch("log", "", "1", *facts)])
    finally:
        crash.arm(None)
    committed = point == "postgres.after_commit"
    assert await other.positions() == ({"log": "1"} if committed else {})
    assert await other.get(TENANT, job_id(1)) == (folded(*facts) if committed else None)
    again = await other.project([batch("log", "", "1", *facts)])
    assert again == (None if committed else [folded(*facts)])


async def test_a_cancelled_projection_is_there_whole_or_not_at_all(store: PostgresStore) -> None:
    position = ""
    for number in range(30):
        facts = [fact for n in range(20) for fact in (request(100 * number + n), failed(100 * number + n))]
        projecting = asyncio.create_task(store.project([batch("log", position, str(number), *facts)]))
        await asyncio.sleep(random.uniform(0, 0.02))
        projecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # it is what was asked for
            await projecting
        there = await store.position("log")
        seen = [await store.get(TENANT, job_id(100 * number + n)) is not None for n in range(20)]
        assert seen == [there == str(number)] * 20
        position = there


@pytest.fixture
async def _unread() -> AsyncIterator[None]:
    """asyncpg leaves a future behind that nobody reads when a connection ends while it is being made."""
    loop = asyncio.get_running_loop()
    ours = loop.get_exception_handler()
    assert ours is not None

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        lost = isinstance(context.get("exception"), asyncpg.ConnectionDoesNotExistError)
        if not (lost and context["message"] == "Future exception was never retrieved"):
            ours(loop, context)

    loop.set_exception_handler(handle)
    yield
    gc.collect()
    loop.set_exception_handler(ours)


@pytest.mark.usefixtures("_unread")
async def test_the_server_dies_again_and_again_under_four_projectors(postgres: Postgres, postgres_dsn: str) -> None:
    """Two for requests, two for events, a kill -9 in each fifth of the way; nothing is lost, changed or doubled."""
    jobs, size, kills, killed = 400, 20, 5, 0
    requests = [request(n) for n in range(jobs)]
    events = [fact for n in range(jobs) for fact in (event(n, EventKind.STARTED), succeeded(n, OUTPUT))]

    async def follow(store: PostgresStore, source: str, facts: list[JobRequest] | list[JobEvent]) -> None:
        while True:
            try:
                start = int(await store.position(source) or 0)
                if start == len(facts):
                    return
                end = min(start + size, (killed + 1) * len(facts) // kills)  # leave something for the next kill
                if end == start:
                    await asyncio.sleep(0.01)
                    continue
                await store.project([batch(source, str(start or ""), str(end), *facts[start:end])])
            except Unavailable:
                await asyncio.sleep(0.01)

    stores = [await PostgresStore.open(postgres_dsn, connections=2) for _ in range(4)]
    async with asyncio.TaskGroup() as tasks:
        for store in stores[:2]:
            tasks.create_task(follow(store, "requests", requests))
        for store in stores[2:]:
            tasks.create_task(follow(store, "events", events))
        for killed in range(kills):  # noqa: B007  # `follow` reads it
            await asyncio.to_thread(postgres.bounce, hard=True)
    for n in range(jobs):
        assert await stores[0].get(TENANT, job_id(n)) == folded(requests[n], events[2 * n], events[2 * n + 1])
    for store in stores:
        await store.close()


async def test_a_rebuild_asks_where_the_log_ends_when_nobody_can_go_beyond_it_any_more(
    store: PostgresStore, other: PostgresStore, sql: Connection
) -> None:
    """Else what a projector made visible meanwhile would be gone when jobs can be read again."""
    assert await store.project([batch("log", "", "1", request(1))]) is not None
    beyond: list[asyncio.Task[object]] = []

    async def ends() -> dict[str, str]:
        beyond.append(asyncio.create_task(other.project([batch("log", "1", "2", request(2))])))
        await wait_for_a_lock(sql)
        return {"log": "1"}

    await store.begin_rebuild(ends)
    assert await beyond[0] is None  # overtaken: the log begins anew
    assert await store.positions() == {}
