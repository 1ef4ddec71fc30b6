"""Readers hear of changes from any process, and are woken when something may have been missed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from dev.postgres.server import Postgres
from forebay.adapters.postgres import PostgresStore, wakeups
from forebay.adapters.postgres.wakeups import EVERYBODY, MOST_JOBS, payload_of
from forebay.core.job import Job
from forebay.core.payload import JSON, Payload
from forebay.ports.store import Subscription
from forebay.testing.samples import TENANT, job_id, request, succeeded
from forebay.testing.store_contract import Feeder, ending

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

LONG_S = 30.0
SHORT_S = 0.05
OUTPUT = Payload(media_type=JSON, data=b"[1]")


def job(number: int) -> Job:
    return Job(tenant=TENANT, id=job_id(number), model="sample")


async def woken(subscription: Subscription) -> bool:
    async with asyncio.timeout(LONG_S):
        return await subscription.changed(LONG_S)


@asynccontextmanager
async def heard(sql: Connection) -> AsyncIterator[list[object]]:
    """The payloads of what is told meanwhile; what the block has committed is in it at its end."""
    payloads: list[object] = []
    last = asyncio.Event()

    def hear(connection: object, pid: int, channel: str, payload: object) -> None:
        last.set() if payload == "last" else payloads.append(payload)

    await sql.add_listener("forebay", hear)
    yield payloads
    await sql.execute("NOTIFY forebay, 'last'")
    async with asyncio.timeout(LONG_S):
        await last.wait()


async def test_readers_of_another_process_are_woken(store: PostgresStore, other: PostgresStore) -> None:
    async with other.subscribe(TENANT, job_id(1)) as mine, other.subscribe(TENANT, job_id(2)) as theirs:
        await Feeder(store)(request(1))
        assert await woken(mine)
        assert await other.get(TENANT, job_id(1)) is not None
        assert not await theirs.changed(SHORT_S)


async def test_a_batch_is_one_notification(store: PostgresStore, sql: Connection) -> None:
    feed = Feeder(store)
    async with heard(sql) as payloads:
        await feed(*(fact for n in range(1000) for fact in (request(n), succeeded(n, OUTPUT))))
        await feed()  # nothing has changed
        await feed(succeeded(5000, OUTPUT))  # a stub, which nobody can see
    assert payloads == [payload_of([job(n) for n in range(1000)])]


async def test_a_batch_of_which_nothing_comes_tells_nobody(store: PostgresStore, sql: Connection) -> None:
    await Feeder(store)(request(1))
    async with heard(sql) as payloads:
        assert await store.project([]) == []
        assert await store.position("log") == "p1"
    assert payloads == []


async def test_of_many_jobs_everybody_is_woken(store: PostgresStore, sql: Connection) -> None:
    async with store.subscribe(TENANT, job_id(9999)) as subscription, heard(sql) as payloads:
        await Feeder(store)(*(request(n) for n in range(MOST_JOBS + 1)))
        assert await woken(subscription)
    assert payloads == [EVERYBODY]


def test_a_payload_is_shorter_than_postgresql_takes() -> None:
    assert len(payload_of([job(n) for n in range(MOST_JOBS)])) < 8000
    assert payload_of([job(n) for n in range(MOST_JOBS + 1)]) == EVERYBODY


async def test_the_beginning_and_the_end_of_a_rebuild_wake_everybody(
    store: PostgresStore, other: PostgresStore
) -> None:
    async with other.subscribe(TENANT, job_id(1)) as subscription:
        await store.begin_rebuild(ending({}))
        assert await woken(subscription)
        await store.end_rebuild()
        assert await woken(subscription)


@pytest.mark.parametrize("payload", ["", "x", "AAAA=", "é", "****", "A" * 7999])
async def test_a_strangers_notification_harms_nobody(store: PostgresStore, sql: Connection, payload: str) -> None:
    async with store.subscribe(TENANT, job_id(1)) as subscription:
        await sql.execute("SELECT pg_notify('forebay', $1)", payload)
        await Feeder(store)(request(1))
        assert await woken(subscription)


# -------------------------------------------------------------------------------------------------------------- away


async def test_readers_are_woken_once_listening_is_possible_again(store: PostgresStore, postgres: Postgres) -> None:
    async with store.subscribe(TENANT, job_id(1)) as subscription:
        for hard in (False, True):
            postgres.bounce(hard=hard)
            assert await woken(subscription)
        await Feeder(store)(request(1))
        assert await woken(subscription)


async def test_a_change_while_nobody_listened_is_not_missed(
    store: PostgresStore, other: PostgresStore, sql: Connection
) -> None:
    async with store.subscribe(TENANT, job_id(1)) as subscription:
        await sql.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        await Feeder(other)(request(1))
        assert await woken(subscription)


async def test_subscribing_while_the_database_is_away_is_possible(store: PostgresStore, postgres: Postgres) -> None:
    postgres.stop()
    async with asyncio.timeout(LONG_S), store.subscribe(TENANT, job_id(1)) as subscription:
        assert not await subscription.changed(SHORT_S)
        postgres.start()
        assert await woken(subscription)


async def test_a_link_that_died_without_a_word_is_noticed(
    store: PostgresStore, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's process of the listening connection is stopped: it neither ends nor answers."""
    monkeypatch.setattr(wakeups, "ASK_EVERY_S", 0.05)
    monkeypatch.setattr(wakeups, "ASK_S", 0.05)
    async with store.subscribe(TENANT, job_id(1)) as subscription:
        assert not await subscription.changed(0.0)
        listening = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query = 'SELECT'"
        [(pid,)] = await sql.fetch(listening)
        os.kill(pid, signal.SIGSTOP)
        try:
            assert await woken(subscription)
        finally:
            os.kill(pid, signal.SIGCONT)
        await Feeder(store)(request(1))
        assert await woken(subscription)


async def test_who_never_subscribes_opens_no_connection_for_it(store: PostgresStore, sql: Connection) -> None:
    await Feeder(store)(request(1))
    assert await sql.fetch("SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%'") == []
