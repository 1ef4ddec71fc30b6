"""API keys are kept alike everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.adapters.memory import MemoryApiKeys
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import SqliteApiKeys
from forebay.core.errors import Misconfigured
from forebay.ports.api_keys import ApiKeys
from forebay.testing.api_keys_contract import KEY, ApiKeysContract, ApiKeysPlace


class MemoryPlace(ApiKeysPlace):
    shared = False

    async def open(self) -> ApiKeys:
        return MemoryApiKeys()

    async def close(self, keys: ApiKeys) -> None:
        return None


class SqlitePlace(ApiKeysPlace):
    shared = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> ApiKeys:
        return SqliteApiKeys(self._folder)

    async def close(self, keys: ApiKeys) -> None:
        assert isinstance(keys, SqliteApiKeys)
        await keys.close()


class PostgresPlace(ApiKeysPlace):
    shared = True

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stores: dict[ApiKeys, PostgresStore] = {}

    async def open(self) -> ApiKeys:
        store = await PostgresStore.open(self._dsn)
        self._stores[store.keys] = store
        return store.keys

    async def close(self, keys: ApiKeys) -> None:
        await self._stores.pop(keys).close()


class TestMemoryApiKeys(ApiKeysContract):
    @pytest.fixture
    def place(self) -> ApiKeysPlace:
        return MemoryPlace()


class TestSqliteApiKeys(ApiKeysContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> ApiKeysPlace:
        return SqlitePlace(tmp_path / "data")

    async def test_the_file_is_for_its_owner_only(self, tmp_path: Path) -> None:
        keys = SqliteApiKeys(tmp_path)
        await keys.put(KEY)
        assert _rights_of_others(tmp_path) == {0}
        await keys.close()

    def test_a_folder_that_cannot_be_used_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(Misconfigured, match=r"keys\.db cannot be used"):
            SqliteApiKeys(tmp_path / "file")


def _rights_of_others(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o077 for path in folder.iterdir()}


class TestPostgresApiKeys(ApiKeysContract):
    @pytest.fixture
    def place(self, postgres_dsn: str) -> ApiKeysPlace:
        return PostgresPlace(postgres_dsn)

    async def test_a_rebuild_does_not_touch_them(self, postgres_dsn: str) -> None:
        store = await PostgresStore.open(postgres_dsn)
        await store.keys.put(KEY)

        async def ends() -> dict[str, str]:
            return {}

        await store.begin_rebuild(ends)
        assert await store.keys.get(KEY.id) == KEY
        await store.close()
