"""While the database is away everything raises Unavailable and soon; when it is back everything works by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator

import asyncpg
import pytest

from dev.kafka.ports import free_port
from dev.postgres.server import Postgres
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.postgres.database import READ_S, TURN_S
from forebay.core.errors import ForebayError, Unavailable
from forebay.core.payload import JSON, Payload
from forebay.ports.store import JobQuery
from forebay.testing.samples import TENANT, job_id, request, succeeded
from forebay.testing.store_contract import batch, ending, folded

SOON_S = 3.0
BACK_WITHIN_S = 10.0
OUTPUT = Payload(media_type=JSON, data=b"[1]")
FACTS = (request(1), succeeded(1, OUTPUT))

Call = Callable[[PostgresStore], Awaitable[object]]
CALLS: dict[str, Call] = {
    "get": lambda store: store.get(TENANT, job_id(1)),
    "list_jobs": lambda store: store.list_jobs(JobQuery(tenant=TENANT, limit=1, look=1)),
    "project": lambda store: store.project([batch("another", "", "1", request(2))]),
    "position": lambda store: store.position("log"),
    "positions": lambda store: store.positions(),
    "rebuilding": lambda store: store.rebuilding(),
    "begin_rebuild": lambda store: store.begin_rebuild(ending({})),
    "end_rebuild": lambda store: store.end_rebuild(),
}


@pytest.fixture
async def filled(store: PostgresStore) -> PostgresStore:
    """It has used several connections, and keeps them."""
    assert await store.project([batch("log", "", "1", *FACTS)]) is not None
    await asyncio.gather(*(store.get(TENANT, job_id(1)) for _ in range(8)))
    return store


@pytest.fixture
def running(postgres: Postgres) -> Iterator[Postgres]:
    """Stopped or not, it runs in the end, so that the test's database can be dropped."""
    yield postgres
    postgres.send_signal(signal.SIGCONT)
    if postgres.gone:
        postgres.start()


async def is_unavailable_soon(call: Awaitable[object]) -> Unavailable:
    with pytest.raises(Unavailable) as refused:
        async with asyncio.timeout(SOON_S):
            await call
    return refused.value


async def works(store: PostgresStore) -> None:
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            try:
                assert await store.get(TENANT, job_id(1)) == folded(*FACTS)
                return
            except Unavailable as error:
                await asyncio.sleep(error.retry_after_s / 10)


async def test_nobody_answers_at_the_start() -> None:
    refused = await is_unavailable_soon(PostgresStore.open(f"postgresql://me:secret@127.0.0.1:{free_port()}/db"))
    assert "secret" not in str(refused)


async def test_somebody_who_never_says_a_word_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        refused = await is_unavailable_soon(PostgresStore.open(f"postgresql://me:secret@127.0.0.1:{port}/db"))
    assert refused.message == f"PostgreSQL at 127.0.0.1:{port}/db does not answer in time"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
async def test_each_call_while_it_is_away(filled: PostgresStore, running: Postgres, name: str, hard: bool) -> None:
    running.kill() if hard else running.stop()
    for _ in range(3):
        await is_unavailable_soon(CALLS[name](filled))
    running.start()
    await works(filled)
    await CALLS[name](filled)


@pytest.mark.parametrize("name", ["get", "position"])
async def test_reads_while_it_is_paused(filled: PostgresStore, running: Postgres, name: str) -> None:
    """SIGSTOP: connections stand, and nothing answers."""
    pids = [row[0] for row in running.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'forebay'")]
    for pid in (*pids, running.pid):
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.gather(*(is_unavailable_soon(CALLS[name](filled)) for _ in range(40)))
    finally:
        for pid in (*pids, running.pid):
            os.kill(pid, signal.SIGCONT)
    await works(filled)


async def test_a_read_that_waited_for_its_turn_has_no_more_time_than_another(
    filled: PostgresStore, running: Postgres
) -> None:
    """Its turn comes while the server is paused, when most of what it may wait for one is over."""
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as busy:
        taken = [await busy.enter_async_context(filled._database.borrow()) for _ in range(8)]
        pids = [await connection.fetchval("SELECT pg_backend_pid()") for connection in taken]
        waiting = asyncio.create_task(is_unavailable_soon(CALLS["get"](filled)))
        await asyncio.sleep(TURN_S - 0.2)
        for pid in (*pids, running.pid):
            os.kill(pid, signal.SIGSTOP)
    try:
        await waiting
    finally:
        for pid in (*pids, running.pid):
            os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - began < READ_S + TURN_S - 0.4  # it would be more if it had all of READ_S from there


async def test_kept_connections_that_died_are_not_noticed(filled: PostgresStore, running: Postgres) -> None:
    """A bounce between two calls: reads go on as if nothing had been; a projection may be told once."""
    for _ in range(3):
        running.bounce()
        assert await filled.get(TENANT, job_id(1)) == folded(*FACTS)
        assert await filled.positions() == {"log": "1"}


async def test_a_connection_that_is_ended_under_a_read(filled: PostgresStore, running: Postgres) -> None:
    async def end_all() -> None:
        for _ in range(20):
            await asyncio.to_thread(
                running.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forebay'",
            )

    ending = asyncio.create_task(end_all())
    read = 0
    while not ending.done():
        with contextlib.suppress(Unavailable):  # and no other error
            assert await filled.get(TENANT, job_id(1)) == folded(*FACTS)
            read += 1
    await ending
    assert read > 0


async def test_no_connection_is_left(filled: PostgresStore, running: Postgres, postgres_dsn: str) -> None:
    """As many as the server takes are somebody else's."""
    running.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'forebay'")
    taken = []
    with contextlib.suppress(asyncpg.TooManyConnectionsError):  # that all are taken is the aim
        while True:
            taken.append(await asyncpg.connect(postgres_dsn))
    refused = await is_unavailable_soon(filled.get(TENANT, job_id(1)))
    assert "too many clients" in refused.message
    for connection in taken:
        await connection.close()
    await works(filled)


async def test_all_connections_are_busy(postgres_dsn: str, sql: asyncpg.Connection[asyncpg.Record]) -> None:
    store = await PostgresStore.open(postgres_dsn, connections=2)
    async with store._database.borrow() as one, store._database.borrow() as other:
        refused = await is_unavailable_soon(store.get(TENANT, job_id(1)))
    assert "all 2 connections were busy" in refused.message
    assert not one.is_closed()
    assert not other.is_closed()
    assert await store.get(TENANT, job_id(1)) is None
    await store.close()


async def test_a_table_that_was_dropped_can_come_back(
    filled: PostgresStore, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await sql.execute("ALTER TABLE forebay.jobs RENAME TO hidden")
    refused = await is_unavailable_soon(filled.get(TENANT, job_id(1)))
    assert 'relation "forebay.jobs" does not exist' in refused.message
    await sql.execute("ALTER TABLE forebay.hidden RENAME TO jobs")
    await works(filled)


async def test_what_the_tables_refuse_is_no_driver_error(
    filled: PostgresStore, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    await sql.execute("ALTER TABLE forebay.jobs ADD CHECK (model <> 'sample')  NOT VALID")
    with pytest.raises(ForebayError, match="violates check constraint") as refused:
        await filled.project([batch("log", "1", "2", request(3))])
    assert (refused.value.code, refused.value.retryable) == ("internal", False)
    assert await filled.positions() == {"log": "1"}
    assert await filled.get(TENANT, job_id(1)) == folded(*FACTS)


async def test_after_the_end_it_is_closed(filled: PostgresStore) -> None:
    await filled.close()
    refused = await is_unavailable_soon(filled.get(TENANT, job_id(1)))
    assert "is closed" in refused.message
    await filled.close()
