"""Reading jobs: at once, or as soon as they are final."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from forebay.core.errors import NotFound
from forebay.core.ids import IdMint, is_foreign
from forebay.core.job import Job
from forebay.ports.blobs import BlobStore
from forebay.ports.store import ResultStore

YOUNG_S = 60.0
"""How long an id that we issued is `queued` though the store has no row of it: projection takes milliseconds."""
REREAD_S = 1.0
"""A wake-up is a hint (ports.store.Subscription): between hints the store is read again this often."""


class JobReader:
    """Finds jobs of a tenant by id. `projector_lag_s()` is how far the store is behind the log."""

    def __init__(
        self,
        *,
        store: ResultStore,
        blobs: BlobStore,
        mint: IdMint,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        projector_lag_s: Callable[[], float],
        draining: asyncio.Event,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._mint = mint
        self._clock = clock
        self._monotonic = monotonic
        self._projector_lag_s = projector_lag_s
        self._draining = draining

    async def get(self, tenant: str, job_id: str) -> Job:
        """The job, without asking anybody but the store. Right after acceptance it is `queued`, with what its id tells.

        A job that came by a record of another producer is found too, once its row is there.
        Raises NotFound for an id that we did not issue to this tenant and for one without a row when the store has had
        time enough; the two cannot be told apart.
        """
        issued_at = self._mint.issued_at(tenant, job_id)
        if issued_at is None and not is_foreign(job_id):
            raise _unknown(job_id)
        job = await self._store.get(tenant, job_id)
        if job is not None:
            return job
        if issued_at is not None and self._clock() - issued_at < max(YOUNG_S, self._projector_lag_s()):
            return Job(tenant=tenant, id=job_id, created_at=issued_at)
        raise _unknown(job_id)

    async def wait(self, tenant: str, job_id: str, wait_s: float, gone: Callable[[], Awaitable[bool]]) -> Job:
        """The job once it is final; as it is after `wait_s`, or when the service stops or the caller is `gone`."""
        until = self._monotonic() + wait_s
        async with self._store.subscribe(tenant, job_id) as subscription:
            job = await self.get(tenant, job_id)
            while True:
                left_s = until - self._monotonic()
                if job.status.final or left_s <= 0 or self._draining.is_set() or await gone():
                    return job
                await subscription.changed(min(left_s, REREAD_S))
                # Not `get`: a job that was known when the wait began does not become unknown by growing old in it.
                job = await self._store.get(tenant, job_id) or job

    async def list(self, tenant: str, *, model: str | None, status: str | None, limit: int) -> list[Job]:
        """Newest first, without outputs."""
        return await self._store.list_jobs(tenant, model=model, status=status, limit=limit)

    async def output(self, job: Job) -> bytes:
        """The bytes of a succeeded job's output, wherever they lie."""
        if job.output is None:
            return b""
        if job.output.blob is not None:
            return await self._blobs.get(job.output.blob)
        return job.output.data or b""


def _unknown(job_id: str) -> NotFound:
    return NotFound(f"no job has the id {job_id[:80]!r}", code="unknown_job")
