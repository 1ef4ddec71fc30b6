"""API keys. Owned, not derived: no rebuild touches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from forebay.core.api_key import ApiKey


class ApiKeys(ABC):
    """Shared by all processes of a service, and by the commands that manage keys."""

    @abstractmethod
    async def put(self, key: ApiKey) -> None:
        """Add a key, or replace the one of this id; durable when this returns. Raises Unavailable."""

    @abstractmethod
    async def get(self, key_id: str) -> ApiKey | None:
        """Raises Unavailable."""

    @abstractmethod
    async def all(self) -> Sequence[ApiKey]:
        """The oldest first, revoked and expired ones too. Raises Unavailable."""
