"""Webhook endpoints are kept alike everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.adapters.memory import MemoryWebhookEndpoints
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import SqliteWebhookEndpoints
from forebay.ports.webhook_endpoints import WebhookEndpoints
from forebay.testing.webhook_endpoints_contract import ENDPOINT, WebhookEndpointsContract, WebhookEndpointsPlace


class MemoryPlace(WebhookEndpointsPlace):
    shared = False

    async def open(self) -> WebhookEndpoints:
        return MemoryWebhookEndpoints()

    async def close(self, endpoints: WebhookEndpoints) -> None:
        return None


class SqlitePlace(WebhookEndpointsPlace):
    shared = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> WebhookEndpoints:
        return SqliteWebhookEndpoints(self._folder)

    async def close(self, endpoints: WebhookEndpoints) -> None:
        assert isinstance(endpoints, SqliteWebhookEndpoints)
        await endpoints.close()


class PostgresPlace(WebhookEndpointsPlace):
    shared = True

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stores: dict[WebhookEndpoints, PostgresStore] = {}

    async def open(self) -> WebhookEndpoints:
        store = await PostgresStore.open(self._dsn)
        self._stores[store.endpoints] = store
        return store.endpoints

    async def close(self, endpoints: WebhookEndpoints) -> None:
        await self._stores.pop(endpoints).close()


class TestMemoryWebhookEndpoints(WebhookEndpointsContract):
    @pytest.fixture
    def place(self) -> WebhookEndpointsPlace:
        return MemoryPlace()


class TestSqliteWebhookEndpoints(WebhookEndpointsContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> WebhookEndpointsPlace:
        return SqlitePlace(tmp_path / "data")


class TestPostgresWebhookEndpoints(WebhookEndpointsContract):
    @pytest.fixture
    def place(self, postgres_dsn: str) -> WebhookEndpointsPlace:
        return PostgresPlace(postgres_dsn)

    async def test_a_rebuild_does_not_touch_them(self, postgres_dsn: str) -> None:
        store = await PostgresStore.open(postgres_dsn)
        await store.endpoints.add(ENDPOINT)

        async def ends() -> dict[str, str]:
            return {}

        await store.begin_rebuild(ends)
        assert await store.endpoints.get("acme", "ep_1") == ENDPOINT
        await store.close()
