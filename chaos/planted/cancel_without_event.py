"""A cancellation is acknowledged from what the workers are told, and the log knows nothing of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from forebay.api.cancel import Canceler
from forebay.core.job import Job, JobStatus


async def cancel(self: Canceler, tenant: str, job_id: str, gone: Callable[[], Awaitable[bool]]) -> Job:
    job = await self._reader.get(tenant, job_id)
    if job.status.final:
        return job
    await self._cancellations.announce(tenant, job_id)
    return replace(job, status=JobStatus.CANCELED, finished_at=self._clock())


def plant() -> None:
    Canceler.cancel = cancel  # type: ignore[method-assign]  # the bug stands in for it
