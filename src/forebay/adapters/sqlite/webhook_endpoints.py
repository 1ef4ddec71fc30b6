"""Webhook endpoints, beside the API keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from forebay.adapters.sqlite.owned import OwnedTable
from forebay.core.webhook_endpoint import ITSELF, WebhookEndpoint
from forebay.ports.webhook_endpoints import WebhookEndpoints

_SCHEMA = """
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    created_at REAL NOT NULL,
    endpoint   BLOB NOT NULL,  -- JSON
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID
"""
_GET = "SELECT endpoint FROM webhook_endpoints WHERE tenant = ? AND id = ?"
_CHANGE = "UPDATE webhook_endpoints SET endpoint = ? WHERE tenant = ? AND id = ? AND endpoint = ? RETURNING id"

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(WebhookEndpoint).decode


class SqliteWebhookEndpoints(WebhookEndpoints):
    def __init__(self, folder: Path) -> None:
        self._table = OwnedTable(folder, _SCHEMA)

    async def close(self) -> None:
        self._table.close()

    async def add(self, endpoint: WebhookEndpoint) -> bool:
        row = (endpoint.tenant, endpoint.id, endpoint.created_at, _encode(endpoint))
        sql = "INSERT INTO webhook_endpoints VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING id"
        return bool(self._table.run(sql, row))

    async def get(self, tenant: str, endpoint_id: str) -> WebhookEndpoint | None:
        rows = self._table.run(_GET, (tenant, endpoint_id))
        return _decode(rows[0][0]) if rows else None

    async def of_tenant(self, tenant: str) -> Sequence[WebhookEndpoint]:
        sql = "SELECT endpoint FROM webhook_endpoints WHERE tenant = ? AND id <> ? ORDER BY created_at, id"
        return [_decode(row[0]) for row in self._table.run(sql, (tenant, ITSELF))]

    async def change(
        self, tenant: str, endpoint_id: str, how: Callable[[WebhookEndpoint], WebhookEndpoint]
    ) -> WebhookEndpoint | None:
        while rows := self._table.run(_GET, (tenant, endpoint_id)):
            changed = how(_decode(rows[0][0]))
            if self._table.run(_CHANGE, (_encode(changed), tenant, endpoint_id, rows[0][0])):
                return changed
        return None

    async def remove(self, tenant: str, endpoint_id: str) -> bool:
        sql = "DELETE FROM webhook_endpoints WHERE tenant = ? AND id = ? RETURNING id"
        return bool(self._table.run(sql, (tenant, endpoint_id)))
