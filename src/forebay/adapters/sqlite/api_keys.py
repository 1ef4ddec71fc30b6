"""API keys in a SQLite file of their own, which a service and the commands that manage keys open side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from forebay.adapters.sqlite.failures import reraise
from forebay.core.api_key import ApiKey, Scope
from forebay.core.errors import Misconfigured
from forebay.ports.api_keys import ApiKeys

BUSY_MS = 2000

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
    """`<folder>/keys.db`. Its calls take microseconds, and a write one flush of the disk, on the calling thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keys.db"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise Misconfigured(
                f"{self._path} cannot be used: {exc.strerror}; let this user read and write it, or name another folder "
                "with data_dir (FOREBAY_DATA_DIR, --data-dir)"
            ) from exc
        try:
            self._connection = apsw.Connection(str(self._path))
            self._connection.set_busy_timeout(BUSY_MS)
            self._connection.pragma("journal_mode", "wal")
            self._connection.pragma("synchronous", "FULL")
            self._connection.execute(_SCHEMA)
        except apsw.Error as exc:
            reraise(exc, self._path)

    async def close(self) -> None:
        self._connection.close()

    async def put(self, key: ApiKey) -> None:
        scopes = " ".join(sorted(key.scopes))
        row = (key.id, key.tenant, key.name, scopes, key.digest, key.created_at, key.expires_at, key.revoked_at)
        self._run(f"INSERT OR REPLACE INTO api_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    async def get(self, key_id: str) -> ApiKey | None:
        rows = self._run(f"SELECT {_COLUMNS} FROM api_keys WHERE id = ?", (key_id,))
        return _key(rows[0]) if rows else None

    async def all(self) -> Sequence[ApiKey]:
        return [_key(row) for row in self._run(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id", ())]

    def _run(self, sql: str, arguments: tuple[Any, ...]) -> list[Any]:
        try:
            return self._connection.execute(sql, arguments).fetchall()
        except apsw.Error as exc:
            reraise(exc, self._path)


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
