"""The promises of `ports.job_batches`, as tests: a part of the contract of a store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from forebay.core.errors import Unavailable
from forebay.core.event import COUNT_MOST, BatchLine, EventKind, JobRequest
from forebay.core.fact import Fact
from forebay.core.job import Job, JobStatus
from forebay.core.job_batch import BatchEvent, BatchEventKind, BatchStatus, JobBatch, RejectedLine
from forebay.core.payload import JSON, Payload
from forebay.core.reservation import Reservation
from forebay.ports.event_log import START, LogBatch
from forebay.ports.store import ResultStore
from forebay.testing.samples import ACCEPTED_AT, TENANT, event, failed, job_id, request, succeeded

Feed = Callable[..., Awaitable[list[Job]]]
"""Projects facts as the next part of a log."""

BATCH = "0193a5b0-0000-7000-8000-00000000000b-0123456789abcdef"
OUTPUT = Payload(media_type=JSON, data=b"[1]")
REJECTED = RejectedLine(line=3, code="malformed_json", message="no JSON", pointer="/é", custom_id="three")


def line(number: int, batch_id: str = BATCH, tenant: str = TENANT) -> JobRequest:
    """The request of the sample job of this number, as that line of the batch."""
    of_batch = BatchLine(batch_id=batch_id, number=number, custom_id=f"row {number}")
    return replace(request(number, tenant=tenant), line=of_batch)


def said(kind: BatchEventKind, batch_id: str = BATCH, **what: Any) -> BatchEvent:
    return BatchEvent(**{"tenant": TENANT, "batch_id": batch_id, "kind": kind, "at": ACCEPTED_AT, **what})


OPENED = said(BatchEventKind.OPENED, model="sample")
LINES = said(BatchEventKind.LINES, lines=4, accepted=3, rejected=(REJECTED,))
SEALED = said(BatchEventKind.SEALED, lines=4, at=ACCEPTED_AT + 0.5)
WHOLE: tuple[Fact, ...] = (
    OPENED,
    line(1),
    line(2),
    line(4),
    LINES,
    SEALED,
    event(1, EventKind.STARTED),
    succeeded(1, OUTPUT),
    failed(2),
    event(4, EventKind.CANCELED, attempt=0, at_s=9.0),
)
"""The life of a batch of three jobs and a line that became none."""

FINISHED = JobBatch(
    tenant=TENANT,
    id=BATCH,
    model="sample",
    created_at=ACCEPTED_AT,
    sealed_at=SEALED.at,
    last_at=ACCEPTED_AT + 4 + 9.0,
    lines=4,
    accepted=3,
    rejected=1,
    succeeded=1,
    failed=1,
    canceled=1,
)


class JobBatchesContract:
    async def test_an_unknown_batch_is_none(self, store: ResultStore, feed: Feed) -> None:
        await feed(OPENED)
        assert await store.batch(TENANT, "another") is None
        assert await store.batch("other", BATCH) is None
        assert await store.lines(TENANT, "another", after=0, limit=9) == []

    async def test_a_batch_counts_its_jobs_step_by_step(self, store: ResultStore, feed: Feed) -> None:
        seen = []
        for fact in WHOLE:
            await feed(fact)
            batch = await store.batch(TENANT, BATCH)
            assert batch is not None
            seen.append((batch.status, batch.queued, batch.running, batch.ended))
        assert [status for status, *_ in seen] == [BatchStatus.INCOMPLETE] * 5 + [BatchStatus.RUNNING] * 4 + [
            BatchStatus.COMPLETED
        ]
        assert [counts for _, *counts in seen[5:]] == [[3, 0, 0], [2, 1, 0], [2, 0, 1], [1, 0, 2], [0, 0, 3]]
        assert await store.batch(TENANT, BATCH) == FINISHED
        assert FINISHED.finished_at == FINISHED.last_at

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    @pytest.mark.parametrize("order", ["as said", "jobs first", "events first"])
    async def test_the_row_does_not_depend_on_how_sources_are_read(
        self, store: ResultStore, feed: Feed, size: int, order: str
    ) -> None:
        requests = [fact for fact in WHOLE if isinstance(fact, JobRequest)]
        others = [fact for fact in WHOLE if not isinstance(fact, JobRequest)]
        facts = {"as said": [*WHOLE], "jobs first": requests + others, "events first": others + requests}[order]
        for start in range(0, len(facts), size):
            await feed(*facts[start : start + size])
        assert await store.batch(TENANT, BATCH) == FINISHED
        await feed(*facts)  # all of it again changes nothing
        assert await store.batch(TENANT, BATCH) == FINISHED

    async def test_it_is_not_finished_while_jobs_are_not_visible(self, store: ResultStore, feed: Feed) -> None:
        await feed(OPENED, LINES, SEALED, line(1), succeeded(1, OUTPUT))
        batch = await store.batch(TENANT, BATCH)
        assert batch is not None
        assert (batch.status, batch.waiting, batch.total) == (BatchStatus.RUNNING, 2, 4)

    async def test_a_batch_of_mistakes_only_is_finished_with_its_seal(self, store: ResultStore, feed: Feed) -> None:
        await feed(OPENED, said(BatchEventKind.LINES, lines=3, rejected=(REJECTED,)), SEALED)
        batch = await store.batch(TENANT, BATCH)
        assert batch is not None
        assert (batch.status, batch.finished_at) == (BatchStatus.COMPLETED, SEALED.at)

    async def test_forged_counts_outgrow_no_store(self, store: ResultStore, feed: Feed) -> None:
        forged = [said(BatchEventKind.LINES, lines=COUNT_MOST - less, accepted=COUNT_MOST) for less in (1, 0)]
        await feed(OPENED, *forged)
        assert (await self.row(store)).accepted == COUNT_MOST

    async def test_a_canceled_batch_takes_no_other_end(self, store: ResultStore, feed: Feed) -> None:
        canceled = said(BatchEventKind.CANCELED, at=ACCEPTED_AT + 7)
        await feed(OPENED, line(1), said(BatchEventKind.LINES, lines=1, accepted=1), canceled)
        assert (await self.status(store), (await self.row(store)).canceled_at) == ("canceling", canceled.at)
        await feed(said(BatchEventKind.SEALED, lines=1), replace(canceled, at=ACCEPTED_AT + 8))
        await feed(said(BatchEventKind.LINES, lines=2, accepted=1))  # what comes behind its end is not of it
        assert (await self.row(store)).accepted == 1
        await feed(event(1, EventKind.CANCELED, attempt=0, at_s=9.0))
        assert (await self.status(store), (await self.row(store)).canceled_at) == ("canceled", canceled.at)

    async def test_a_cancel_that_came_after_the_end_changes_nothing(self, store: ResultStore, feed: Feed) -> None:
        await feed(*WHOLE, said(BatchEventKind.CANCELED, at=FINISHED.last_at + 0.1))
        assert await self.status(store) == BatchStatus.COMPLETED

    async def row(self, store: ResultStore) -> JobBatch:
        batch = await store.batch(TENANT, BATCH)
        assert batch is not None
        return batch

    async def status(self, store: ResultStore) -> str:
        return (await self.row(store)).status.value

    async def test_lines_come_in_their_order_with_outputs_and_mistakes(self, store: ResultStore, feed: Feed) -> None:
        await feed(*reversed(WHOLE[:5]))
        await feed(*WHOLE[5:])
        one, two, three, four = await store.lines(TENANT, BATCH, after=0, limit=9)
        assert three == REJECTED
        for number, job in ((1, one), (2, two), (4, four)):
            assert not isinstance(job, RejectedLine)
            assert job.line == BatchLine(batch_id=BATCH, number=number, custom_id=f"row {number}")
            assert job == await store.get(TENANT, job_id(number))
        assert not isinstance(one, RejectedLine)
        assert one.output == OUTPUT

    async def test_lines_can_be_read_page_by_page(self, store: ResultStore, feed: Feed) -> None:
        await feed(*WHOLE, line(5, "another batch"), request(6))
        whole = await store.lines(TENANT, BATCH, after=0, limit=9)
        assert [await store.lines(TENANT, BATCH, after=after, limit=1) for after in range(4)] == [
            [one] for one in whole
        ]
        assert await store.lines(TENANT, BATCH, after=4, limit=1) == []
        assert await store.lines(TENANT, BATCH, after=1, limit=2) == whole[1:3]

    async def test_the_unfinished_are_found_in_their_order(self, store: ResultStore, feed: Feed) -> None:
        await feed(OPENED, *(line(n) for n in range(1, 8)), event(3, EventKind.STARTED), failed(2), failed(5))

        async def numbers(after: int, limit: int) -> list[int]:
            found = await store.unfinished(TENANT, BATCH, after=after, limit=limit)
            assert {job.status for job in found} <= {JobStatus.QUEUED, JobStatus.RUNNING}
            return [job.line.number for job in found if job.line is not None]

        assert await numbers(0, 9) == [1, 3, 4, 6, 7]
        assert await numbers(1, 2) == [3, 4]
        assert await numbers(7, 9) == []

    async def test_batches_are_listed_newest_first_and_page_by_page(self, store: ResultStore, feed: Feed) -> None:
        await feed(*(replace(OPENED, batch_id=f"b{n}", at=ACCEPTED_AT + n // 2) for n in range(5)))
        await feed(replace(OPENED, tenant="other"), line(1, "a stub"))
        page = await store.list_batches(TENANT, after=None, limit=9)
        assert ([one.id for one in page.batches], page.next) == (["b4", "b3", "b2", "b1", "b0"], None)
        found, after = [], None
        for _ in range(3):
            page = await store.list_batches(TENANT, after=after, limit=2)
            found += [one.id for one in page.batches]
            after = page.next
        assert (found, after) == (["b4", "b3", "b2", "b1", "b0"], None)

    async def test_parts_of_a_batch_publish_their_reservations(self, store: ResultStore, feed: Feed) -> None:
        await feed(replace(LINES, key="part", fingerprint="same"))
        assert await store.reserved(TENANT, "part") == Reservation(
            tenant=TENANT, key="part", job_id=BATCH, fingerprint="same", accepted_at=ACCEPTED_AT, published=True
        )

    async def test_projectors_that_share_a_batch_count_each_job_once(
        self, store: ResultStore, other: ResultStore
    ) -> None:
        numbers = range(1, 101)

        async def project(projector: ResultStore, source: str, facts: Sequence[Fact]) -> None:
            for start in range(0, len(facts), 10):
                part = tuple(facts[start : start + 10])
                ends = [START if place == 0 else str(place) for place in (start, start + 10)]
                batch = LogBatch(source=source, start=ends[0], end=ends[1], facts=part)
                assert await projector.project([batch]) is not None

        ends = [succeeded(n, OUTPUT) if n % 2 else failed(n) for n in numbers]
        lines = said(BatchEventKind.LINES, lines=100, accepted=100)
        await asyncio.gather(
            project(store, "requests", [line(n) for n in numbers]),
            project(other, "events", [event(n, EventKind.STARTED) for n in numbers]),
            project(store, "ends", ends),
            project(other, "batches", [OPENED, lines, said(BatchEventKind.SEALED, lines=100)]),
        )
        found = await store.batch(TENANT, BATCH)
        assert found is not None
        assert (found.status, found.succeeded, found.failed) == (BatchStatus.COMPLETED, 50, 50)
        assert (found.queued, found.running, found.last_at) == (0, 0, ends[-1].at)

    @pytest.mark.parametrize("name", ["naïve ✓", "nul \0", "\\", "'; DROP TABLE batches; --"])
    async def test_every_name_of_a_batch_comes_back(self, store: ResultStore, feed: Feed, name: str) -> None:
        refused = RejectedLine(line=1, code=name, message=name, pointer=name, custom_id=name)
        lines = said(BatchEventKind.LINES, name, tenant=name, lines=1, rejected=(refused,))
        of_name = replace(line(2, name, name), line=BatchLine(batch_id=name, number=2, custom_id=name))
        await feed(said(BatchEventKind.OPENED, name, tenant=name, model=name), lines, of_name)
        batch = await store.batch(name, name)
        assert batch is not None
        assert (batch.tenant, batch.id, batch.model, batch.rejected, batch.queued) == (name, name, name, 1, 1)
        found, job = await store.lines(name, name, after=0, limit=9)
        assert found == refused
        assert not isinstance(job, RejectedLine)
        assert job.line == of_name.line

    async def test_a_rebuild_empties_them_and_hides_them(self, store: ResultStore, feed: Feed) -> None:
        await feed(*WHOLE)

        async def ends() -> dict[str, str]:
            return {"log": "1"}

        await store.begin_rebuild(ends)
        for call in (
            store.batch(TENANT, BATCH),
            store.list_batches(TENANT, after=None, limit=1),
            store.lines(TENANT, BATCH, after=0, limit=1),
            store.unfinished(TENANT, BATCH, after=0, limit=1),
        ):
            with pytest.raises(Unavailable) as refused:
                await call
            assert refused.value.code == "rebuilding"
        await store.end_rebuild()
        assert await store.batch(TENANT, BATCH) is None
        assert await store.lines(TENANT, BATCH, after=0, limit=9) == []
