"""Reading jobs: at once, or as soon as they are final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from msgspec.structs import replace

from forebay.api.idempotency import Key
from forebay.core.errors import BlobDamaged, Conflict, Gone, NotFound, Unavailable
from forebay.core.ids import IdMint, is_derived, is_uuid
from forebay.core.job import Job
from forebay.core.partials import Partial
from forebay.core.reservation import digest_of_key
from forebay.core.wire import canonical_json
from forebay.ports.blobs import BlobStore
from forebay.ports.store import JobPage, JobQuery, ResultStore

UUID_CHARS = 36
log = structlog.get_logger()

YOUNG_S = 60.0
"""How long an id that we issued is `queued` though the store has no row of it: projection takes milliseconds."""
REREAD_S = 1.0
"""A wake-up is a hint (ports.store.Subscription): between hints the store is read again this often."""


LOOK_AT = 1000
"""Jobs in one step of a search: few enough to take some milliseconds, whatever they are."""
LOOK_AT_METADATA = 250
"""Jobs in one step of a search by metadata, of which each may have 16 KiB, or by what else the store does not know."""
LOOK_FOR_S = 0.02
"""How long a search may begin another step: so a page takes well under 50 ms, and the usual store is searched whole."""


Keep = Callable[[Sequence[Job]], Awaitable[list[Job]]]
"""Chooses some of these jobs, in their order."""


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

        A job that came by a record of another producer, or as a line of a batch, is found too, once its row is there;
        one under a UUID of the caller's choice by that UUID, too.
        Raises NotFound for an id that we did not issue to this tenant and for one without a row when the store has had
        time enough; the two cannot be told apart. Raises Gone for one that was deleted.
        """
        asked, job_id = job_id, await self.whole(tenant, job_id)
        issued_at = self._mint.issued_at(tenant, job_id)
        chosen = issued_at is None and self._mint.chosen(tenant, job_id)
        if issued_at is None and not chosen and not is_derived(job_id):
            raise _unknown(asked)
        job = await self._look(tenant, job_id)
        if job is not None:
            return job
        if issued_at is not None and self._clock() - issued_at < max(YOUNG_S, self._projector_lag_s()):
            return Job(tenant=tenant, id=job_id, created_at=issued_at)
        if chosen:
            reservation = await self._store.reserved(tenant, _digest(job_id[:UUID_CHARS]))
            young_s = max(YOUNG_S, self._projector_lag_s())
            # One that is young may be published, though nobody could write that down.
            if reservation is not None and (reservation.published or self._clock() - reservation.accepted_at < young_s):
                return Job(tenant=tenant, id=job_id, created_at=reservation.accepted_at)
        raise _unknown(asked)

    async def _look(self, tenant: str, job_id: str) -> Job | None:
        """What the store has. Raises Gone for a job that was deleted."""
        job = await self._store.get(tenant, job_id)
        if job is not None and job.deleted_at is not None:
            raise Gone("the job was deleted, when it was retained no longer or because somebody asked for it")
        return job

    async def whole(self, tenant: str, job_id: str) -> str:
        """The id of a job that is asked for by the UUID alone, which its caller chose; any other as it is."""
        if not is_uuid(job_id.lower()):
            return job_id
        reservation = await self._store.reserved(tenant, _digest(job_id.lower()))
        return reservation.job_id if reservation is not None else self._mint.of_uuid(tenant, job_id)

    def key_for(self, tenant: str, uuid: str) -> Key:
        """The key of a UUID of somebody's choice. Raises InvalidRequest for what is none."""
        return Key(_digest(uuid.lower()), self._mint.of_uuid(tenant, uuid))

    async def key_of(self, tenant: str, uuid: str) -> Key:
        """As `key_for`. Raises Conflict, too, if there is a job under it of which nobody can tell whether it is the
        same."""
        key = self.key_for(tenant, uuid)
        if await self._store.reserved(tenant, key.digest) is None and await self._store.get(tenant, key.job_id):
            raise Conflict(f"there is a job {key.job_id}, and its key is forgotten", code="job_exists")
        return key

    async def wait(self, tenant: str, job_id: str, wait_s: float, gone: Callable[[], Awaitable[bool]]) -> Job:
        """The job once it is final; as it is after `wait_s`, or when the service stops or the caller is `gone`."""
        until = self._monotonic() + wait_s
        job_id = await self.whole(tenant, job_id)
        async with self._store.subscribe(tenant, job_id) as subscription:
            job = await self.get(tenant, job_id)
            while True:
                left_s = until - self._monotonic()
                if job.status.final or left_s <= 0 or self._draining.is_set() or await gone():
                    return job
                await subscription.changed(min(left_s, REREAD_S))
                # Not `get`: a job that was known when the wait began does not become unknown by growing old in it.
                job = await self._look(tenant, job_id) or job

    async def wait_until_gone(
        self, tenant: str, job_id: str, wait_s: float, gone: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Whether the job is deleted; not known to be after `wait_s`, or when the service stops or the caller is
        `gone`."""
        until = self._monotonic() + wait_s
        async with self._store.subscribe(tenant, job_id) as subscription:
            while True:
                job = await self._store.get(tenant, job_id)
                if job is None or job.deleted_at is not None:
                    return True
                left_s = until - self._monotonic()
                if left_s <= 0 or self._draining.is_set() or await gone():
                    return False
                await subscription.changed(min(left_s, REREAD_S))

    async def changes(
        self, job: Job, gone: Callable[[], Awaitable[bool]], *, quiet_s: float, within_s: float
    ) -> AsyncGenerator[Job | None, None]:
        """The job, and then the job again whenever it may have changed; None after `quiet_s` without a word. Ends when
        it is final or deleted, after `within_s`, when the service stops or the caller is `gone`. A store that is away
        has no news.
        """
        told_at = began_at = self._monotonic()
        async with self._store.subscribe(job.tenant, job.id) as subscription:
            job = await self._now(job)
            if job.deleted_at is not None:
                return
            yield job
            while not (job.status.final or self._draining.is_set() or await gone()):
                await subscription.changed(REREAD_S)
                now = await self._now(job)
                if now.deleted_at is not None:
                    return
                if now != job:
                    job, told_at = now, self._monotonic()
                    yield job
                elif self._monotonic() - told_at >= quiet_s:
                    told_at = self._monotonic()
                    yield None
                if self._monotonic() - began_at >= within_s:
                    return

    async def partials(self, job: Job, attempt: int, chunk: int, limit: int) -> list[Partial]:
        """As that of the store."""
        return await self._store.partials(job.tenant, job.id, attempt, chunk, limit)

    async def _now(self, job: Job) -> Job:
        try:
            return await self._store.get(job.tenant, job.id) or job
        except Unavailable as error:  # no news: the stream goes on, and is told once it is back
            log.warning("watch.blind", code=error.code, error=error.message)
            return job

    async def list(self, query: JobQuery, keep: Keep | None = None) -> JobPage:
        """Newest first, without outputs; of those that fit the query the ones to `keep`.

        Looks through as many jobs as LOOK_FOR_S has time for, however few of them fit: then the page is short, and its
        `next` says where to go on.
        """
        until = self._monotonic() + LOOK_FOR_S
        found: list[Job] = []
        limit = query.limit
        while True:
            asked = replace(query, limit=min(query.look, LOOK_AT_METADATA) if keep else limit - len(found))
            page = await self._store.list_jobs(asked)
            for job in await keep(page.jobs) if keep else page.jobs:
                found.append(job)
                if len(found) == limit:
                    more = page.next is not None or job is not page.jobs[-1]
                    return JobPage(found, (job.created_at, job.id) if more else None)
            if page.next is None or self._monotonic() >= until:
                return JobPage(found, page.next)
            query = replace(query, after=page.next)

    async def output(self, job: Job) -> bytes:
        """The bytes of a succeeded job's output, wherever they lie. Raises Gone for one that was deleted since."""
        if job.output is None:
            return b""
        if job.output.blob is not None:
            try:
                return await self._blobs.get(job.output.blob)
            except BlobDamaged:
                await self._look(job.tenant, job.id)  # it may have been deleted since
                raise
        return job.output.data or b""


def with_metadata(wanted: Mapping[str, str]) -> Keep | None:
    """Those that have it; None where nothing is asked for."""

    async def keep(jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if has_metadata(job, wanted)]

    return keep if wanted else None


def has_metadata(job: Job, wanted: Mapping[str, str]) -> bool:
    """Whether the job's metadata has each of these members with this value: a string as it is, anything else as its
    JSON (`3`, `true`)."""
    return all(name in job.metadata and text in _texts(job.metadata[name]) for name, text in wanted.items())


def _texts(value: Any) -> tuple[str]:
    return (value if isinstance(value, str) else canonical_json(value).decode(),)


def _digest(uuid: str) -> str:
    return digest_of_key("uuid", uuid)


def _unknown(job_id: str) -> NotFound:
    return NotFound(f"no job has the id {job_id[:80]!r}", code="unknown_job")
