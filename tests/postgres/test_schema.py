"""Several processes may begin at once, and what an operator must mend is said before anything is written."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import asyncpg
import pytest

from dev.postgres.server import Postgres
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.postgres.schema import MIGRATIONS
from forebay.core.errors import Misconfigured
from forebay.testing.samples import request
from forebay.testing.store_contract import batch


async def opens(dsn: str) -> None:
    await (await PostgresStore.open(dsn)).close()


async def test_ten_processes_begin_at_once_on_an_empty_database(postgres_dsn: str) -> None:
    stores = await asyncio.gather(*(PostgresStore.open(postgres_dsn) for _ in range(10)))
    for number, store in enumerate(stores):
        assert await store.project([batch(f"s{number}", "", "1", request(number))]) is not None
    for store in stores:
        await store.close()


async def test_a_second_start_changes_nothing(postgres: Postgres, postgres_dsn: str) -> None:
    database = postgres_dsn.rpartition("/")[2]
    applied = "SELECT number, applied_at FROM forebay.migrations ORDER BY number"
    await opens(postgres_dsn)
    before = postgres.execute(applied, database)
    await opens(postgres_dsn)
    assert postgres.execute(applied, database) == before
    assert [row[0] for row in before] == list(range(1, len(MIGRATIONS) + 1))


async def test_a_newer_schema_is_left_alone(postgres: Postgres, postgres_dsn: str) -> None:
    await opens(postgres_dsn)
    newer = len(MIGRATIONS) + 1
    postgres.execute(f"INSERT INTO forebay.migrations (number) VALUES ({newer})", postgres_dsn.rpartition("/")[2])
    with pytest.raises(Misconfigured, match=rf"newer Forebay \(schema {newer}; this one knows up to {newer - 1}\)"):
        await PostgresStore.open(postgres_dsn)


async def test_a_schema_half_way_is_brought_to_the_end(
    postgres: Postgres, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opens(postgres_dsn)
    monkeypatch.setattr(
        "forebay.adapters.postgres.schema.MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE forebay.later (n int)",))
    )
    await opens(postgres_dsn)
    assert postgres.execute("SELECT FROM forebay.later", postgres_dsn.rpartition("/")[2]) == []


async def test_a_migration_that_fails_leaves_nothing_behind(
    postgres: Postgres, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (*MIGRATIONS, ("CREATE TABLE forebay.later (n int)", "SELECT 1 / 0"))
    monkeypatch.setattr("forebay.adapters.postgres.schema.MIGRATIONS", broken)
    with pytest.raises(Exception, match="division by zero"):
        await PostgresStore.open(postgres_dsn)
    found = postgres.execute("SELECT FROM pg_tables WHERE schemaname = 'forebay'", postgres_dsn.rpartition("/")[2])
    assert found == []
    monkeypatch.undo()
    await opens(postgres_dsn)


# ------------------------------------------------------------------------------------------------------ the operator's


@pytest.fixture
def role(postgres: Postgres) -> Iterator[str]:
    """One that may do nothing, with a password of its own name."""
    name = f"role_{secrets.token_hex(8)}"
    postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    yield name
    postgres.execute(f"DROP OWNED BY {name} CASCADE")
    postgres.execute(f"DROP ROLE {name}")


def as_role(dsn: str, role: str) -> str:
    return f"postgresql://{role}:{role}@{dsn.rpartition('@')[2]}"


async def test_without_the_right_to_create_the_schema(postgres_dsn: str, role: str) -> None:
    with pytest.raises(Misconfigured, match="permission denied for database"):
        await PostgresStore.open(as_role(postgres_dsn, role))


async def test_a_schema_that_was_made_for_us_will_do(postgres: Postgres, postgres_dsn: str, role: str) -> None:
    database = postgres_dsn.rpartition("/")[2]
    postgres.execute(f"CREATE SCHEMA forebay AUTHORIZATION {role}", database)
    store = await PostgresStore.open(as_role(postgres_dsn, role))
    assert await store.project([batch("log", "", "1", request(1))]) is not None
    await store.close()
    postgres.execute("DROP SCHEMA forebay CASCADE", database)


async def test_a_database_that_cannot_hold_every_name(postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with pytest.raises(Misconfigured, match="in LATIN1"):
            await PostgresStore.open(postgres.dsn("latin"))
    finally:
        postgres.drop_database("latin")


async def test_a_server_that_is_too_old(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.adapters.postgres.schema.OLDEST_SERVER", 99)
    with pytest.raises(Misconfigured, match=r"the server is PostgreSQL \d+; Forebay needs 99 or newer"):
        await PostgresStore.open(postgres_dsn)


async def test_a_wrong_password(postgres_dsn: str) -> None:
    with pytest.raises(Misconfigured, match="password authentication failed") as refused:
        await PostgresStore.open(as_role(postgres_dsn, "forebay"))
    assert isinstance(refused.value.__cause__, asyncpg.PostgresError)


async def test_a_database_that_is_not_there(postgres: Postgres) -> None:
    with pytest.raises(Misconfigured, match='database "nowhere" does not exist'):
        await PostgresStore.open(postgres.dsn("nowhere"))


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:se/cret@127.0.0.1/db",
        "postgresql://me:se#cret@127.0.0.1/db",
        "postgresql://me:se@cret@127.0.0.1:x/db",
        "postgresql://me:secret@127.0.0.1:99999/db",
        "postgresql://me:secret@[::1/db",
        "postgresql://me:secret@127.0.0.1/db?sslmode=bogus&password=secret",
        "http://me:secret@127.0.0.1/db",
    ],
)
async def test_an_address_that_is_none_is_told_without_its_password(dsn: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        await PostgresStore.open(dsn)
    assert "cret" not in refused.value.message.replace("no address", "")
    assert "127.0.0.1" in refused.value.message or "::1" in refused.value.message
