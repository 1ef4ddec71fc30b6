"""Quotas that are gone with the process."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.core.quota import Quota
from forebay.ports.quotas import Quotas


class MemoryQuotas(Quotas):
    def __init__(self) -> None:
        self._quotas: dict[str, Quota] = {}

    async def put(self, tenant: str, quota: Quota) -> None:
        self._quotas.pop(tenant, None)
        if quota.limits:
            self._quotas[tenant] = quota

    async def get(self, tenant: str) -> Quota:
        return self._quotas.get(tenant, Quota())

    async def all(self) -> Mapping[str, Quota]:
        return dict(sorted(self._quotas.items()))
