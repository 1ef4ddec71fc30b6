"""Quotas of tenants. Owned, not derived: no rebuild touches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from forebay.core.quota import Quota


class Quotas(ABC):
    """Shared by all processes of a service, and by the commands that manage quotas."""

    @abstractmethod
    async def put(self, tenant: str, quota: Quota) -> None:
        """The quota of a tenant, in place of the one it had; one without limits is none. Durable when this returns.
        Raises Unavailable."""

    @abstractmethod
    async def get(self, tenant: str) -> Quota:
        """Without limits for a tenant that has none. Raises Unavailable."""

    @abstractmethod
    async def all(self) -> Mapping[str, Quota]:
        """Of each tenant that has one, by their names in order. Raises Unavailable."""
