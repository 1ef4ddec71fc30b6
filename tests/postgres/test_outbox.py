"""What dispatchers and projectors on one database do to each other's deliveries: each is sent by one, and nothing that
was said of one is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
from tests.postgres.test_projection import wait_for_a_lock

from forebay.adapters.postgres import PostgresStore, deliveries
from forebay.core.delivery import DeliveryStatus, delivery_id
from forebay.core.webhook import WebhookTarget
from forebay.testing.outbox_contract import NOW, ONE, OUTPUT, claimed, done, failed_try, of, parked, told, tried
from forebay.testing.samples import TENANT, job_id, succeeded
from forebay.testing.store_contract import Feeder, batch

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

LOCK = "SELECT FROM forebay.deliveries WHERE job_id = $1 FOR UPDATE"


@pytest.fixture
async def feed(store: PostgresStore) -> Feeder:
    """Five jobs, each of which tells two receivers."""
    feed = Feeder(store)
    targets = (ONE, WebhookTarget(endpoint="ep_1"))
    await feed(*(told(n, *targets) for n in range(5)), *(done(n) for n in range(5)))
    return feed


@pytest.fixture
async def rival(feed: Feeder, postgres_dsn: str) -> Connection:
    return await asyncpg.connect(postgres_dsn)


async def test_what_another_has_in_hand_is_passed_over(store: PostgresStore, rival: Connection) -> None:
    async with rival.transaction():
        await rival.execute(LOCK, job_id(1))
        found = await claimed(store)
    await rival.close()
    assert sorted({one.job_id for one in found}) == [job_id(n) for n in (0, 2, 3, 4)]
    assert [one.job_id for one in await claimed(store, holder="two")] == [job_id(1)] * 2


async def test_dispatchers_share_what_is_due(store: PostgresStore, other: PostgresStore, feed: Feeder) -> None:
    stores = [store, other] * 4
    taken = await asyncio.gather(
        *(claimed(one, holder=str(n), limit=3, each=2) for n, one in enumerate(stores)),
    )
    ids = [one.id for found in taken for one in found]
    left = await claimed(store, holder="last")
    assert len(ids) == len(set(ids))
    assert len({*ids, *(one.id for one in left)}) == 10


@pytest.mark.parametrize("call", ["settle", "give_back", "forget"])
async def test_deliveries_are_locked_in_one_order(
    store: PostgresStore, sql: Connection, rival: Connection, call: str
) -> None:
    """So whoever holds the first of them may take the others."""
    mine = sorted(await claimed(store), key=lambda one: one.job_id, reverse=True)
    jobs = [job for one in mine[::2] if (job := await store.get(TENANT, one.job_id)) is not None]
    await sql.execute("UPDATE forebay.jobs SET deleted_at = 1 WHERE true")
    await rival.execute("BEGIN")
    await rival.execute(LOCK, job_id(0))
    calls = {
        "settle": lambda: store.settle("one", [tried(one) for one in mine]),
        "give_back": lambda: store.give_back("one"),
        "forget": lambda: store.forget(jobs),
    }
    calling = asyncio.ensure_future(calls[call]())
    await wait_for_a_lock(sql)
    await rival.execute(LOCK.replace("UPDATE", "UPDATE NOWAIT"), job_id(4))
    await rival.execute("COMMIT")
    await rival.close()
    await calling
    statuses = {one.status for n in range(5) for one in await of(store, n)}
    expected = {"settle": {DeliveryStatus.DELIVERED}, "give_back": {DeliveryStatus.PENDING}, "forget": set()}
    assert statuses == expected[call]


async def test_a_projector_and_a_dispatcher_that_meet_lose_nothing(
    store: PostgresStore, sql: Connection, feed: Feeder, rival: Connection
) -> None:
    """The dispatcher's row is locked while it settles; the projector waits, and finds that it knows that already."""
    [first, *_] = await claimed(store)
    said = failed_try(first, 1, NOW + 9.0)
    async with rival.transaction():
        await rival.execute(LOCK, first.job_id)
        projecting = asyncio.ensure_future(feed(said, parked(first, 2)))
        await wait_for_a_lock(sql)
        settling = asyncio.ensure_future(store.settle("one", [said]))
    await rival.close()
    await asyncio.gather(projecting, settling)
    [seen] = [one for one in await store.deliveries(TENANT, first.job_id, 9) if one.id == first.id]
    assert (seen.status, seen.tried, [one.number for one in seen.tries]) == (DeliveryStatus.PARKED, 2, [1, 2])


async def test_a_stub_that_another_has_inserted_meanwhile_is_met_and_filled(
    store: PostgresStore, sql: Connection, postgres_dsn: str
) -> None:
    """One projector reads the request while another reads what became of its delivery: both have seen no row."""
    await Feeder(store, "requests")(told(7))
    rival = await asyncpg.connect(postgres_dsn)
    named = delivery_id(TENANT, job_id(7), "completed", ONE)
    await rival.execute("BEGIN")
    await rival.execute(deliveries._INSERT_STUBS, [TENANT], [job_id(7)], [named])
    await rival.execute("UPDATE forebay.deliveries SET tried = 2, in_turn = 2, status = 'delivered'")
    mine = asyncio.create_task(store.project([batch("events", "", "1", succeeded(7, OUTPUT))]))
    await wait_for_a_lock(sql)
    await rival.execute("COMMIT")
    await rival.close()
    assert await mine is not None
    [found] = await of(store, 7)
    assert (found.id, found.type, found.url) == (named, "job.succeeded", ONE.url)
    assert (found.status, found.tried) == (DeliveryStatus.DELIVERED, 2)
