"""Quotas of tenants, beside the API keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forebay.adapters.sqlite.owned import OwnedTable
from forebay.core.quota import Quota
from forebay.ports.quotas import Quotas

_SCHEMA = """
CREATE TABLE IF NOT EXISTS quotas (
    tenant           TEXT PRIMARY KEY,
    jobs_per_minute  INTEGER,
    jobs_per_day     INTEGER,
    jobs_outstanding INTEGER
) STRICT, WITHOUT ROWID
"""
_COLUMNS = "jobs_per_minute, jobs_per_day, jobs_outstanding"


class SqliteQuotas(Quotas):
    def __init__(self, folder: Path) -> None:
        self._table = OwnedTable(folder, _SCHEMA)

    async def close(self) -> None:
        self._table.close()

    async def put(self, tenant: str, quota: Quota) -> None:
        if quota.limits:
            limits = (quota.jobs_per_minute, quota.jobs_per_day, quota.jobs_outstanding)
            self._table.run(
                f"INSERT OR REPLACE INTO quotas (tenant, {_COLUMNS}) VALUES (?, ?, ?, ?)", (tenant, *limits)
            )
        else:
            self._table.run("DELETE FROM quotas WHERE tenant = ?", (tenant,))

    async def get(self, tenant: str) -> Quota:
        rows = self._table.run(f"SELECT {_COLUMNS} FROM quotas WHERE tenant = ?", (tenant,))
        return _quota(*rows[0]) if rows else Quota()

    async def all(self) -> Mapping[str, Quota]:
        rows = self._table.run(f"SELECT tenant, {_COLUMNS} FROM quotas ORDER BY tenant")
        return {tenant: _quota(*limits) for tenant, *limits in rows}


def _quota(per_minute: int | None, per_day: int | None, outstanding: int | None) -> Quota:
    return Quota(jobs_per_minute=per_minute, jobs_per_day=per_day, jobs_outstanding=outstanding)
