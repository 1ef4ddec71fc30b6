"""Webhook endpoints: the table `webhook_endpoints`, which no rebuild touches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from forebay.adapters.postgres.database import Database
from forebay.adapters.postgres.texts import to_text
from forebay.core.webhook_endpoint import ITSELF, WebhookEndpoint
from forebay.ports.webhook_endpoints import WebhookEndpoints

_ADD = "INSERT INTO forebay.webhook_endpoints VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING id"
_GET = "SELECT endpoint FROM forebay.webhook_endpoints WHERE tenant = $1 AND id = $2"
_OF_TENANT = """
SELECT endpoint FROM forebay.webhook_endpoints WHERE tenant = $1 AND id <> $2 ORDER BY created_at, id
"""
_CHANGE = """
UPDATE forebay.webhook_endpoints SET endpoint = $1 WHERE tenant = $2 AND id = $3 AND endpoint = $4 RETURNING id
"""
_REMOVE = "DELETE FROM forebay.webhook_endpoints WHERE tenant = $1 AND id = $2 RETURNING id"

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(WebhookEndpoint).decode


class PostgresWebhookEndpoints(WebhookEndpoints):
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, endpoint: WebhookEndpoint) -> bool:
        key = (to_text(endpoint.tenant), to_text(endpoint.id))
        return bool(await self._database.fetch(_ADD, *key, endpoint.created_at, _encode(endpoint)))

    async def get(self, tenant: str, endpoint_id: str) -> WebhookEndpoint | None:
        rows = await self._database.fetch(_GET, to_text(tenant), to_text(endpoint_id))
        return _decode(rows[0][0]) if rows else None

    async def of_tenant(self, tenant: str) -> Sequence[WebhookEndpoint]:
        return [_decode(row[0]) for row in await self._database.fetch(_OF_TENANT, to_text(tenant), ITSELF)]

    async def change(
        self, tenant: str, endpoint_id: str, how: Callable[[WebhookEndpoint], WebhookEndpoint]
    ) -> WebhookEndpoint | None:
        key = (to_text(tenant), to_text(endpoint_id))
        while rows := await self._database.fetch(_GET, *key):
            changed = how(_decode(rows[0][0]))
            if await self._database.fetch(_CHANGE, _encode(changed), *key, rows[0][0]):
                return changed
        return None

    async def remove(self, tenant: str, endpoint_id: str) -> bool:
        return bool(await self._database.fetch(_REMOVE, to_text(tenant), to_text(endpoint_id)))
