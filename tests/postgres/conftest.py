"""What the tests of the PostgreSQL adapter share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import asyncpg
import pytest

from forebay.adapters.postgres import PostgresStore

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(postgres_dsn)
    yield store
    await store.close()


@pytest.fixture
async def other(postgres_dsn: str, store: PostgresStore) -> AsyncIterator[PostgresStore]:
    """Another process's, on the same database."""
    other = await PostgresStore.open(postgres_dsn)
    yield other
    await other.close()


@pytest.fixture
async def sql(postgres_dsn: str, store: PostgresStore) -> AsyncIterator[Connection]:
    """A person at the same database, once the tables are there."""
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    connection.terminate()
