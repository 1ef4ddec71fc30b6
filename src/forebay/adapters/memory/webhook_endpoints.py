"""Webhook endpoints that are gone with the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forebay.core.webhook_endpoint import ITSELF, WebhookEndpoint
from forebay.ports.webhook_endpoints import WebhookEndpoints


class MemoryWebhookEndpoints(WebhookEndpoints):
    def __init__(self) -> None:
        self._endpoints: dict[tuple[str, str], WebhookEndpoint] = {}

    async def add(self, endpoint: WebhookEndpoint) -> bool:
        key = (endpoint.tenant, endpoint.id)
        return self._endpoints.setdefault(key, endpoint) is endpoint

    async def get(self, tenant: str, endpoint_id: str) -> WebhookEndpoint | None:
        return self._endpoints.get((tenant, endpoint_id))

    async def of_tenant(self, tenant: str) -> Sequence[WebhookEndpoint]:
        found = [one for one in self._endpoints.values() if one.tenant == tenant and one.id != ITSELF]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    async def change(
        self, tenant: str, endpoint_id: str, how: Callable[[WebhookEndpoint], WebhookEndpoint]
    ) -> WebhookEndpoint | None:
        known = self._endpoints.get((tenant, endpoint_id))
        if known is not None:
            known = self._endpoints[tenant, endpoint_id] = how(known)
        return known

    async def remove(self, tenant: str, endpoint_id: str) -> bool:
        return self._endpoints.pop((tenant, endpoint_id), None) is not None
