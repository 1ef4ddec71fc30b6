"""API keys: the table `api_keys`, which no rebuild touches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forebay.adapters.postgres.database import Database
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.core.api_key import ApiKey, Scope
from forebay.ports.api_keys import ApiKeys

_COLUMNS = "id, tenant, name, scopes, digest, created_at, expires_at, revoked_at"
_PUT = f"""
INSERT INTO forebay.api_keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, name = excluded.name, scopes = excluded.scopes,
    digest = excluded.digest, created_at = excluded.created_at, expires_at = excluded.expires_at,
    revoked_at = excluded.revoked_at
"""


class PostgresApiKeys(ApiKeys):
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, key: ApiKey) -> None:
        await self._database.fetch(
            _PUT,
            to_text(key.id),
            to_text(key.tenant),
            to_text(key.name),
            sorted(key.scopes),
            key.digest,
            key.created_at,
            key.expires_at,
            key.revoked_at,
        )

    async def get(self, key_id: str) -> ApiKey | None:
        rows = await self._database.fetch(f"SELECT {_COLUMNS} FROM forebay.api_keys WHERE id = $1", to_text(key_id))
        return _key(tuple(rows[0])) if rows else None

    async def all(self) -> Sequence[ApiKey]:
        rows = await self._database.fetch(f"SELECT {_COLUMNS} FROM forebay.api_keys ORDER BY created_at, id")
        return [_key(tuple(row)) for row in rows]


def _key(row: Sequence[Any]) -> ApiKey:
    key_id, tenant, name, scopes, digest, created_at, expires_at, revoked_at = row
    return ApiKey(
        id=from_text(key_id),
        tenant=from_text(tenant),
        name=from_text(name),
        scopes=frozenset(map(Scope, scopes)),
        digest=digest,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
