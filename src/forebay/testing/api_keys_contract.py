"""The promises of `ports.api_keys`, as tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from forebay.core.api_key import ApiKey, Scope
from forebay.ports.api_keys import ApiKeys

KEY = ApiKey(
    id="0123456789ab",
    tenant="acme",
    name="naïve ✓ 'quoted'",
    scopes=frozenset({Scope.READ, Scope.SUBMIT}),
    digest="ab" * 32,
    created_at=1_764_000_000.25,
)


class ApiKeysPlace(ABC):
    """Where keys are kept. `shared`: what is opened twice sees the same."""

    shared: bool

    @abstractmethod
    async def open(self) -> ApiKeys: ...

    @abstractmethod
    async def close(self, keys: ApiKeys) -> None: ...


@pytest.mark.anyio
class ApiKeysContract:
    @pytest.fixture
    def place(self) -> ApiKeysPlace:
        raise NotImplementedError("say where they are kept")

    @pytest.fixture
    async def keys(self, place: ApiKeysPlace) -> AsyncIterator[ApiKeys]:
        opened = await place.open()
        yield opened
        await place.close(opened)

    async def test_there_are_none_at_first(self, keys: ApiKeys) -> None:
        assert list(await keys.all()) == []
        assert await keys.get(KEY.id) is None

    @pytest.mark.parametrize("expires_at", [None, 1_764_000_001.5])
    @pytest.mark.parametrize("revoked_at", [None, 1_764_000_002.5])
    async def test_a_key_comes_back_as_it_was(
        self, keys: ApiKeys, expires_at: float | None, revoked_at: float | None
    ) -> None:
        key = replace(KEY, expires_at=expires_at, revoked_at=revoked_at)
        await keys.put(key)
        assert await keys.get(KEY.id) == key
        assert list(await keys.all()) == [key]

    async def test_a_key_is_replaced_by_its_id(self, keys: ApiKeys) -> None:
        await keys.put(KEY)
        revoked = replace(KEY, revoked_at=1_764_000_009.0)
        for _ in range(2):
            await keys.put(revoked)
        assert list(await keys.all()) == [revoked]

    async def test_the_oldest_comes_first(self, keys: ApiKeys) -> None:
        made = [replace(KEY, id=f"{number:012x}", created_at=100.0 - number // 2) for number in range(5)]
        for key in made:
            await keys.put(key)
        assert list(await keys.all()) == sorted(made, key=lambda key: (key.created_at, key.id))

    async def test_a_service_and_a_command_see_the_same(self, place: ApiKeysPlace) -> None:
        one, other = await place.open(), await place.open()
        try:
            await one.put(KEY)
            assert list(await other.all()) == ([KEY] if place.shared else [])
            if place.shared:
                await other.put(replace(KEY, revoked_at=5.0))
                assert await one.get(KEY.id) == replace(KEY, revoked_at=5.0)
        finally:
            await place.close(one)
            await place.close(other)
