"""Webhook endpoints and the secrets that sign. Owned, not derived: no rebuild touches them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from forebay.core.webhook_endpoint import ITSELF, WebhookEndpoint


class WebhookEndpoints(ABC):
    """Shared by all processes of a service, and by commands beside it. All of these raise Unavailable; what is written
    is durable when they return."""

    @abstractmethod
    async def add(self, endpoint: WebhookEndpoint) -> bool:
        """False, and nothing is changed, if the tenant has one of this id."""

    @abstractmethod
    async def get(self, tenant: str, endpoint_id: str) -> WebhookEndpoint | None: ...

    @abstractmethod
    async def of_tenant(self, tenant: str) -> Sequence[WebhookEndpoint]:
        """The oldest first, without what the tenant keeps for itself."""

    @abstractmethod
    async def change(
        self, tenant: str, endpoint_id: str, how: Callable[[WebhookEndpoint], WebhookEndpoint]
    ) -> WebhookEndpoint | None:
        """The endpoint as `how` makes it of what it is; None if there is none. Whoever else changes it meanwhile is
        not undone: then `how` is asked again."""

    @abstractmethod
    async def remove(self, tenant: str, endpoint_id: str) -> bool:
        """False if there was none."""

    async def itself(self, tenant: str, make: Callable[[], WebhookEndpoint]) -> WebhookEndpoint:
        """What the tenant keeps for itself: as `make` makes it (under the id ITSELF) if nobody has before."""
        while True:
            known = await self.get(tenant, ITSELF)
            if known is not None:
                return known
            await self.add(make())
