"""Cancellations among the roles of one process."""

from __future__ import annotations

from forebay.ports.cancellations import Cancellations


class MemoryCancellations(Cancellations):
    async def announce(self, tenant: str, job_id: str) -> None:
        self.heard.add(tenant, job_id)
