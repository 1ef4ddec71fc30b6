"""Quotas are kept alike everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.adapters.memory import MemoryQuotas
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import SqliteQuotas
from forebay.ports.quotas import Quotas
from forebay.testing.quotas_contract import QUOTA, QuotasContract, QuotasPlace


class MemoryPlace(QuotasPlace):
    shared = False

    async def open(self) -> Quotas:
        return MemoryQuotas()

    async def close(self, quotas: Quotas) -> None:
        return None


class SqlitePlace(QuotasPlace):
    shared = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> Quotas:
        return SqliteQuotas(self._folder)

    async def close(self, quotas: Quotas) -> None:
        assert isinstance(quotas, SqliteQuotas)
        await quotas.close()


class PostgresPlace(QuotasPlace):
    shared = True

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stores: dict[Quotas, PostgresStore] = {}

    async def open(self) -> Quotas:
        store = await PostgresStore.open(self._dsn)
        self._stores[store.quotas] = store
        return store.quotas

    async def close(self, quotas: Quotas) -> None:
        await self._stores.pop(quotas).close()


class TestMemoryQuotas(QuotasContract):
    @pytest.fixture
    def place(self) -> QuotasPlace:
        return MemoryPlace()


class TestSqliteQuotas(QuotasContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> QuotasPlace:
        return SqlitePlace(tmp_path / "data")


class TestPostgresQuotas(QuotasContract):
    @pytest.fixture
    def place(self, postgres_dsn: str) -> QuotasPlace:
        return PostgresPlace(postgres_dsn)

    async def test_a_rebuild_does_not_touch_them(self, postgres_dsn: str) -> None:
        store = await PostgresStore.open(postgres_dsn)
        await store.quotas.put("acme", QUOTA)

        async def ends() -> dict[str, str]:
            return {}

        await store.begin_rebuild(ends)
        assert await store.quotas.get("acme") == QUOTA
        await store.close()
