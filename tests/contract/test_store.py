"""Every store keeps the same promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.adapters.memory import MemoryStore
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import Database, SqliteStore
from forebay.ports.store import ResultStore
from forebay.testing.store_contract import StoreContract, StorePlace


class MemoryPlace(StorePlace):
    survives_restart = False

    async def open(self) -> ResultStore:
        return MemoryStore()

    async def close(self, store: ResultStore) -> None:
        return None


class SqlitePlace(StorePlace):
    survives_restart = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[ResultStore, Database] = {}

    async def open(self) -> ResultStore:
        database = Database(self._folder).open()
        store = SqliteStore(database)
        self._open[store] = database
        return store

    async def close(self, store: ResultStore) -> None:
        await self._open.pop(store).close()


class PostgresPlace(StorePlace):
    survives_restart = True
    shared = True

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def open(self) -> PostgresStore:
        return await PostgresStore.open(self._dsn)

    async def close(self, store: ResultStore) -> None:
        assert isinstance(store, PostgresStore)
        await store.close()


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def place(self) -> StorePlace:
        return MemoryPlace()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> StorePlace:
        return SqlitePlace(tmp_path)


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def place(self, postgres_dsn: str) -> StorePlace:
        return PostgresPlace(postgres_dsn)
