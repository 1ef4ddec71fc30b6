"""API keys, in the file of what is owned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forebay.adapters.sqlite.owned import OwnedTable
from forebay.core.api_key import ApiKey, Scope
from forebay.ports.api_keys import ApiKeys

_SCHEMA = """
CREATE TABLE IF NOT EXISTS api_keys (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    scopes     TEXT NOT NULL,  -- words, separated by spaces
    digest     TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT, WITHOUT ROWID
"""
_COLUMNS = "id, tenant, name, scopes, digest, created_at, expires_at, revoked_at"


class SqliteApiKeys(ApiKeys):
    def __init__(self, folder: Path) -> None:
        self._table = OwnedTable(folder, _SCHEMA)

    async def close(self) -> None:
        self._table.close()

    async def put(self, key: ApiKey) -> None:
        scopes = " ".join(sorted(key.scopes))
        row = (key.id, key.tenant, key.name, scopes, key.digest, key.created_at, key.expires_at, key.revoked_at)
        self._table.run(f"INSERT OR REPLACE INTO api_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    async def get(self, key_id: str) -> ApiKey | None:
        rows = self._table.run(f"SELECT {_COLUMNS} FROM api_keys WHERE id = ?", (key_id,))
        return _key(rows[0]) if rows else None

    async def all(self) -> Sequence[ApiKey]:
        return [_key(row) for row in self._table.run(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id")]


def _key(row: Sequence[Any]) -> ApiKey:
    key_id, tenant, name, scopes, digest, created_at, expires_at, revoked_at = row
    return ApiKey(
        id=key_id,
        tenant=tenant,
        name=name,
        scopes=frozenset(map(Scope, scopes.split())),
        digest=digest,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
