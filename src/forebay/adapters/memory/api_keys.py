"""API keys in a dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.core.api_key import ApiKey
from forebay.ports.api_keys import ApiKeys


class MemoryApiKeys(ApiKeys):
    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}

    async def put(self, key: ApiKey) -> None:
        self._keys[key.id] = key

    async def get(self, key_id: str) -> ApiKey | None:
        return self._keys.get(key_id)

    async def all(self) -> Sequence[ApiKey]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))
