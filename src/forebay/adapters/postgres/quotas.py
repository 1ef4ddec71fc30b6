"""Quotas of tenants: the table `quotas`, which no rebuild touches."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.adapters.postgres.database import Database
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.core.quota import Quota
from forebay.ports.quotas import Quotas

_COLUMNS = "jobs_per_minute, jobs_per_day, jobs_outstanding"
_PUT = f"""
INSERT INTO forebay.quotas (tenant, {_COLUMNS}) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant) DO UPDATE SET jobs_per_minute = excluded.jobs_per_minute, jobs_per_day = excluded.jobs_per_day,
    jobs_outstanding = excluded.jobs_outstanding
"""


class PostgresQuotas(Quotas):
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, tenant: str, quota: Quota) -> None:
        if quota.limits:
            limits = (quota.jobs_per_minute, quota.jobs_per_day, quota.jobs_outstanding)
            await self._database.fetch(_PUT, to_text(tenant), *limits)
        else:
            await self._database.fetch("DELETE FROM forebay.quotas WHERE tenant = $1", to_text(tenant))

    async def get(self, tenant: str) -> Quota:
        sql = f"SELECT {_COLUMNS} FROM forebay.quotas WHERE tenant = $1"
        rows = await self._database.fetch(sql, to_text(tenant))
        return _quota(*rows[0]) if rows else Quota()

    async def all(self) -> Mapping[str, Quota]:
        sql = f'SELECT tenant, {_COLUMNS} FROM forebay.quotas ORDER BY tenant COLLATE "C"'
        return {from_text(tenant): _quota(*limits) for tenant, *limits in await self._database.fetch(sql)}


def _quota(per_minute: int | None, per_day: int | None, outstanding: int | None) -> Quota:
    return Quota(jobs_per_minute=per_minute, jobs_per_day=per_day, jobs_outstanding=outstanding)
