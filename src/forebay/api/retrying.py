"""Doing a job again: a new job from the input that the log has kept. The old one never changes (DESIGN, P2).

The id of the new job follows from the old one's and a count, and is reserved like a UUID of a caller's choice: so of
any number of copies of a retry, at any number of API processes, there is one job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from forebay.api.idempotency import Key
from forebay.api.reading import JobReader
from forebay.api.submission import Submitter
from forebay.core.errors import BlobDamaged, Conflict, Gone, InvalidRequest, NotFound
from forebay.core.event import JobRequest
from forebay.core.ids import uuid_of_retry
from forebay.core.job import Job, JobStatus, apply
from forebay.core.message import Message
from forebay.core.payload import Payload
from forebay.core.wire import decode_request
from forebay.ports.blobs import BlobStore
from forebay.ports.event_log import EventLog
from forebay.ports.store import ResultStore
from forebay.telemetry.metrics import Metrics

log = structlog.get_logger()

INPUT_GONE = "input_gone"


class Retried(Struct, frozen=True):
    """The job that does another again. `replayed`: it was there before."""

    job: Job
    replayed: bool = False


class Retrier:
    def __init__(
        self,
        *,
        reader: JobReader,
        store: ResultStore,
        events: EventLog,
        blobs: BlobStore,
        submitter: Submitter,
        metrics: Metrics,
    ) -> None:
        self._reader = reader
        self._store = store
        self._events = events
        self._blobs = blobs
        self._submitter = submitter
        self._metrics = metrics

    async def retry(self, tenant: str, job_id: str) -> Retried:
        """Do a job again that ended without success. As long as its newest retry goes on, or if that has succeeded, it
        is the answer; if that ended without success too, there is another one.

        Raises NotFound; Conflict for a job that has not ended (`job_not_final`) or has succeeded (`job_succeeded`);
        Gone (`input_gone`); TooMany, Unavailable, OutcomeUnknown: to be repeated.
        """
        job = await self._reader.get(tenant, job_id)
        if not job.status.final:
            raise Conflict(f"the job {job.id} is {job.status.value}: it has not ended", code="job_not_final")
        if job.status is JobStatus.SUCCEEDED:
            raise Conflict(f"the job {job.id} has succeeded; to run it again, submit it anew", code="job_succeeded")
        retries = await self.retries_of(job)
        newest = await self._known(tenant, retries[-1]) if retries else None
        if newest is not None and (not newest.status.final or newest.status is JobStatus.SUCCEEDED):
            return Retried(newest, replayed=True)
        return await self._submit(await self.request_of(job), len(retries) + 1)

    async def redrive(self, job: Job, request: JobRequest | None = None) -> Retried:
        """Do a job again that has failed, unless that was ever done before. `request`: as it was accepted, if that was
        read already. Raises as `retry` does; Gone (`job_gone`), too, where the job that did so is kept no longer."""
        if retries := await self.retries_of(job, most=1):
            newest = await self._known(job.tenant, retries[0])
            if newest is None:
                raise Gone(f"the job {job.id} was done again as {retries[0]}, which is kept no longer")
            return Retried(newest, replayed=True)
        return await self._submit(request or await self.request_of(job), 1)

    async def retries_of(self, job: Job, most: int | None = None) -> list[str]:
        """The ids of the jobs that do it again, the first to begin with; at most so many."""
        found: list[str] = []
        while most is None or len(found) < most:
            reservation = await self._store.reserved(job.tenant, self._key(job, len(found) + 1).digest)
            if reservation is None or not reservation.published:
                break
            found.append(reservation.job_id)
        return found

    async def never_retried(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of these jobs, all of one tenant, that nobody has done again."""
        if not jobs:
            return []
        keys = [self._key(job, 1).digest for job in jobs]
        taken = await self._store.published_of(jobs[0].tenant, keys)
        return [job for job, key in zip(jobs, keys, strict=True) if key not in taken]

    async def messages_of(self, jobs: Iterable[Job]) -> Mapping[str, Message]:
        """What was accepted, by job; without those of which the log has it no more. Raises Unavailable."""
        placed = [job for job in jobs if job.place]
        found = await self._events.at([job.place for job in placed])
        return {
            job.id: message
            for job, message in zip(placed, found, strict=True)
            if message is not None and (message.tenant, message.job_id) == (job.tenant, job.id)
        }

    async def request_of(self, job: Job) -> JobRequest:
        """As it was accepted. Raises Gone (`input_gone`)."""
        message = (await self.messages_of([job])).get(job.id)
        if message is None:
            raise gone(job)
        return decode_request(message)

    async def input_of(self, request: JobRequest) -> bytes:
        """Raises Gone (`input_gone`)."""
        given = request.input
        if given.blob is None:
            return given.data or b""
        try:
            return await self._blobs.get(given.blob)
        except (BlobDamaged, InvalidRequest) as error:  # InvalidRequest: a foreign record's reference is no name
            log.warning("input.lost", job=request.job_id, error=error.message)
            raise gone(request) from error

    async def _submit(self, request: JobRequest, number: int) -> Retried:
        data = await self.input_of(request)
        request = replace(request, input=Payload(media_type=request.input.media_type, data=data))
        accepted = await self._submitter.accept_again(request, self._key(request, number))
        if accepted.replayed:
            return Retried(await self._reader.get(request.tenant, accepted.request.job_id), replayed=True)
        self._metrics.jobs_submitted.labels(request.model, request.lane).inc()
        self._metrics.jobs_retried.labels(request.model).inc()
        return Retried(apply(None, accepted.request))

    async def _known(self, tenant: str, job_id: str) -> Job | None:
        """None for one that was kept for so long and no longer."""
        try:
            return await self._reader.get(tenant, job_id)
        except (NotFound, Gone):
            return None

    def _key(self, job: Job | JobRequest, number: int) -> Key:
        job_id = job.id if isinstance(job, Job) else job.job_id
        return self._reader.key_for(job.tenant, uuid_of_retry(job.tenant, job_id, number))


def gone(job: Job | JobRequest) -> Gone:
    job_id = job.id if isinstance(job, Job) else job.job_id
    return Gone(f"the input of the job {job_id} is no longer kept; submit it anew", code=INPUT_GONE)
