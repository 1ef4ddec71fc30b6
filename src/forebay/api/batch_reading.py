"""Reading batches, and canceling them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from msgspec.structs import replace

from forebay.api.batch_log import LOGGED_WITHIN_S, BatchDiffers, BatchLog, key_of
from forebay.api.batch_object import LOST, write_line
from forebay.api.idempotency import Key, KeyInUse
from forebay.api.reading import YOUNG_S, JobReader
from forebay.core.errors import BlobDamaged, Gone, NotFound, Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.ids import IdMint, is_uuid
from forebay.core.job import Job
from forebay.core.job_batch import JobBatch, RejectedLine
from forebay.core.payload import JSON
from forebay.ports.cancellations import Cancellations
from forebay.ports.event_log import EventLog
from forebay.ports.job_batches import BatchPage, BatchPlace
from forebay.ports.store import ResultStore

log = structlog.get_logger()

PAGE_LINES = 100
"""Of results, read at once: outputs that lie in the store are some 256 KiB each at most."""

FLUSH_BYTES = 64 * 1024

CANCEL_JOBS = 500
"""Canceled at once: one write of the log."""

CANCELED_WITHIN_S = 10.0
"""Of one call. What is left then is canceled by the next one."""

LOOK_EVERY_S = 0.1


class BatchReader:
    """Finds batches of a tenant by their ids, or by the UUID that its caller chose. `mint` is of batches."""

    def __init__(
        self,
        *,
        store: ResultStore,
        jobs: JobReader,
        mint: IdMint,
        clock: Callable[[], float],
        projector_lag_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._mint = mint
        self._clock = clock
        self._projector_lag_s = projector_lag_s

    def issue(self, tenant: str, now: float) -> str:
        """A new id."""
        return self._mint.issue(tenant, now)

    def new_key(self, tenant: str) -> Key:
        """That of a batch which nobody else can know."""
        return key_of(self.issue(tenant, self._clock()))

    async def key_of(self, tenant: str, batch_id: str) -> Key:
        """Under which a file is sent: a UUID of the caller's choice, or the id of a batch that was begun. Raises
        InvalidRequest for what is neither."""
        if self._mint.issued_at(tenant, batch_id) is not None or self._mint.chosen(tenant, batch_id):
            return key_of(batch_id)
        return key_of(await self._whole(tenant, self._mint.of_uuid(tenant, batch_id)))

    async def get(self, tenant: str, batch_id: str) -> JobBatch:
        """Of one that was opened just now perhaps no more than that. Raises NotFound."""
        asked = batch_id
        if is_uuid(batch_id.lower()):
            batch_id = await self._whole(tenant, self._mint.of_uuid(tenant, batch_id))
        issued_at = self._mint.issued_at(tenant, batch_id)
        if issued_at is not None or self._mint.chosen(tenant, batch_id):
            batch = await self._store.batch(tenant, batch_id)
            if batch is not None:
                return batch
            opened = await self._store.reserved(tenant, key_of(batch_id).digest)
            opened_at = opened.accepted_at if opened is not None else issued_at
            if opened_at is not None and self._clock() - opened_at < max(YOUNG_S, self._projector_lag_s()):
                return JobBatch(tenant, batch_id, created_at=opened_at)
        raise NotFound(f"no batch has the id {asked[:80]!r}", code="unknown_batch")

    async def _whole(self, tenant: str, batch_id: str) -> str:
        """The id that the batch got, perhaps under another secret."""
        opened = await self._store.reserved(tenant, key_of(batch_id).digest)
        return batch_id if opened is None else opened.job_id

    async def list(self, tenant: str, after: BatchPlace | None, limit: int) -> BatchPage:
        return await self._store.list_batches(tenant, after=after, limit=limit)

    async def results(self, batch: JobBatch, after_line: int) -> AsyncIterator[bytes]:
        """What is visible of its lines, in their order, as JSON Lines in pieces. Whatever the batch's size, this holds
        one page."""
        while True:
            page = await self._store.lines(batch.tenant, batch.id, after=after_line, limit=PAGE_LINES)
            text = b""
            for one in page:
                text += await self._line(one)
                if len(text) >= FLUSH_BYTES:
                    yield text
                    text = b""
            if text:
                yield text
            if len(page) < PAGE_LINES:
                return
            after_line = _number(page[-1])

    async def _line(self, one: Job | RejectedLine) -> bytes:
        if not isinstance(one, Job) or one.output is None or one.output.media_type != JSON:
            return write_line(one)
        try:
            return write_line(one, await self._jobs.output(one))
        except Gone:  # deleted since the page was read
            return write_line(replace(one, output=None, deleted_at=self._clock()))
        except BlobDamaged as error:  # nobody gets this one back, which is no reason to keep the others from anybody
            log.error("batch.output_lost", job_id=one.id, code=error.code, error=error.message)
            return write_line(one, mistake=LOST)


class BatchCanceler:
    def __init__(
        self,
        *,
        reader: BatchReader,
        store: ResultStore,
        log: BatchLog,
        events: EventLog,
        cancellations: Cancellations,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._store = store
        self._log = log
        self._events = events
        self._cancellations = cancellations
        self._clock = clock
        self._monotonic = monotonic

    async def cancel(self, tenant: str, batch_id: str, gone: Callable[[], Awaitable[bool]]) -> JobBatch:
        """End what is not final: no line comes any more, and every job of it gets its final event. The batch as it is
        then; not finished where that takes longer than CANCELED_WITHIN_S. Calling again goes on.

        Raises NotFound; Unavailable when it is not known that the log has it.
        """
        until = self._monotonic() + CANCELED_WITHIN_S
        batch = await self._reader.get(tenant, batch_id)
        if batch.canceled_at is None and batch.finished_at is None:
            await self._log.cancel(tenant, batch.id)
        told: set[str] = set()
        while True:
            if batch.finished_at is not None or self._monotonic() >= until or await gone():
                return batch
            if batch.sealed_at is None:
                await self._seal(batch)
            if not await self._cancel_jobs(batch, told, until):
                await asyncio.sleep(LOOK_EVERY_S)
            batch = await self._reader.get(tenant, batch.id)

    async def _seal(self, batch: JobBatch) -> None:
        try:
            await self._log.seal(batch.tenant, batch.id, batch.lines)
        except (BatchDiffers, KeyInUse):
            return  # a part is on its way: once it is visible, the end is behind it

    async def _cancel_jobs(self, batch: JobBatch, told: set[str], until: float) -> bool:
        """Those that are visible and not in `told`; whether there were any."""
        after, found = 0, False
        while self._monotonic() < until:
            page = await self._store.unfinished(batch.tenant, batch.id, after=after, limit=CANCEL_JOBS)
            if new := [job for job in page if job.id not in told]:
                found = True
                await self._cancel_all(new)
                told.update(job.id for job in new)
            if len(page) < CANCEL_JOBS:
                break
            after = _number(page[-1])
        return found

    async def _cancel_all(self, jobs: list[Job]) -> None:
        now = self._clock()
        events = [JobEvent(tenant=job.tenant, job_id=job.id, kind=EventKind.CANCELED, at=now) for job in jobs]
        try:
            async with asyncio.timeout(LOGGED_WITHIN_S):
                await self._events.publish(events)
        except TimeoutError as error:
            raise Unavailable(f"the log has not taken it within {LOGGED_WITHIN_S:g} s") from error
        # Only now: a worker that hears of it says nothing of the job any more.
        async with asyncio.TaskGroup() as telling:
            for job in jobs:
                telling.create_task(self._cancellations.announce(job.tenant, job.id))


def _number(one: Job | RejectedLine) -> int:
    if isinstance(one, RejectedLine):
        return one.line
    assert one.line is not None, "a job of a batch"
    return one.line.number
