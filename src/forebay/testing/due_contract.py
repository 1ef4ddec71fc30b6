"""The promises of `ports.due`, as tests."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.job import Job, JobStatus, deletion
from forebay.core.payload import JSON, Payload
from forebay.core.quota import Use
from forebay.ports.event_log import START
from forebay.ports.store import ResultStore
from forebay.testing.samples import TENANT, event, failed, job_id, request, succeeded

NOW = 1_800_000_000.0
"""When the log took the requests here, far from when they say that they were accepted."""


def logged(number: int, **clocks: float) -> JobRequest:
    return replace(request(number), logged_at=NOW + number, **clocks)


def deleted(job: Job, at: float) -> JobEvent:
    return replace(deletion(job, at), logged_at=at)


@pytest.mark.anyio
class DueContract:
    """Mixed into the suite of a store."""

    async def test_who_is_due_is_told_the_longest_due_first(self, store: ResultStore, feed: Any) -> None:
        await feed(
            logged(1, start_within_s=60.0),
            logged(2, start_within_s=30.0),
            logged(3),
            logged(4, start_within_s=10.0),
            replace(event(4, EventKind.STARTED), logged_at=NOW + 5.0),
            logged(5, retain_s=20.0),
            replace(succeeded(5, Payload(media_type=JSON, data=b"1")), logged_at=NOW + 6.0),
            replace(failed(6), logged_at=NOW),
        )
        assert await store.due(NOW + 25.9, 9) == []
        assert [job.id for job in await store.due(NOW + 61.0, 9)] == [job_id(5), job_id(2), job_id(1)]
        assert [job.id for job in await store.due(NOW + 61.0, 2)] == [job_id(5), job_id(2)]
        [done, *_] = await store.due(NOW + 61.0, 9)
        assert (done.status, done.over_at, done.output) == (JobStatus.SUCCEEDED, NOW + 26.0, None)
        everything = await store.due(NOW + 10 * 86_400.0, 9)
        assert [job.id for job in everything] == [job_id(n) for n in (5, 2, 1, 3, 4)]

    async def test_who_is_due_is_told_in_pages(self, store: ResultStore, feed: Any) -> None:
        at_once = [replace(request(n), logged_at=NOW, start_within_s=10.0) for n in range(4)]
        await feed(*at_once, logged(4, start_within_s=10.0), logged(5))
        first = await store.due(NOW + 60.0, 2)
        assert [job.id for job in first] == [job_id(0), job_id(1)]
        second = await store.due(NOW + 60.0, 2, (NOW + 10.0, TENANT, job_id(1)))
        assert [job.id for job in second] == [job_id(2), job_id(3)]
        third = await store.due(NOW + 60.0, 2, (NOW + 10.0, TENANT, job_id(3)))
        assert [job.id for job in third] == [job_id(4)]
        assert await store.due(NOW + 60.0, 2, (NOW + 14.0, TENANT, job_id(4))) == []

    async def test_tombstones_are_told_in_pages(self, store: ResultStore, feed: Any) -> None:
        await feed(*(logged(n) for n in range(4)), *(failed(n) for n in range(4)))
        for number in (3, 2, 1, 0):  # two at a time, the later ids first
            job = await store.get(TENANT, job_id(number))
            assert job is not None
            await feed(deleted(job, NOW + 10.0 + number // 2))
        place = (NOW + 10.0, TENANT, job_id(1))
        for page in (await store.unswept(9), await store.tombstones(NOW + 99.0, 9)):
            assert [job.id for job in page] == [job_id(n) for n in range(4)]
        for page in (await store.unswept(1, place), await store.tombstones(NOW + 99.0, 1, place)):
            assert [job.id for job in page] == [job_id(2)]
        assert await store.tombstones(NOW + 11.0, 9, place) == []

    async def test_a_deleted_job_is_a_tombstone_without_a_result(self, store: ResultStore, feed: Any) -> None:
        await feed(logged(1), logged(2), succeeded(1, Payload(media_type=JSON, data=b"1")), failed(2))
        job = await store.get(TENANT, job_id(1))
        assert job is not None
        [gone] = await feed(deleted(job, NOW + 9.0))
        assert gone == await store.get(TENANT, job_id(1))
        assert (gone.deleted_at, gone.status, gone.finished_at) == (NOW + 9.0, job.status, job.finished_at)
        assert (gone.model, gone.output, gone.metadata) == ("", None, {})
        assert await feed(succeeded(1, Payload(media_type=JSON, data=b"2"), attempt=9), logged(1)) == []
        assert await store.get(TENANT, job_id(1)) == gone

    async def test_deleting_makes_no_room_in_a_quota(self, store: ResultStore, feed: Any) -> None:
        await feed(*(logged(n) for n in range(3)), failed(0), failed(1))
        asked = {"minute_from": logged(0).accepted_at, "day_from": 0.0}
        before = await store.used(TENANT, most=Use(jobs_per_minute=9, jobs_per_day=9, jobs_outstanding=9), **asked)
        assert (before.jobs_per_minute, before.jobs_per_day, before.jobs_outstanding) == (2, 3, 1)
        for number in (0, 1):
            job = await store.get(TENANT, job_id(number))
            assert job is not None
            await feed(deleted(job, NOW + 10.0))
        assert (
            await store.used(TENANT, most=Use(jobs_per_minute=9, jobs_per_day=9, jobs_outstanding=9), **asked) == before
        )
        assert (await store.used(TENANT, most=Use(jobs_per_day=2), **asked)).jobs_per_day == 2

    async def test_a_tombstone_may_come_before_all_that_it_speaks_of(self, store: ResultStore, feed: Any) -> None:
        await feed(replace(event(1, EventKind.DELETED, attempt=0), logged_at=NOW))
        await feed(logged(1), event(1, EventKind.STARTED), succeeded(1, Payload(media_type=JSON, data=b"1")))
        assert await store.get(TENANT, job_id(1)) == Job(tenant=TENANT, id=job_id(1), deleted_at=NOW)

    async def test_tombstones_are_swept_and_then_forgotten(self, store: ResultStore, feed: Any) -> None:
        await feed(*(replace(logged(n), key=f"key {n}", fingerprint="same") for n in range(3)), failed(0), failed(1))
        for number in (0, 1):
            job = await store.get(TENANT, job_id(number))
            assert job is not None
            await feed(deleted(job, NOW + 10.0 * number))
        unswept = await store.unswept(9)
        assert sorted(job.id for job in unswept) == [job_id(0), job_id(1)]
        for _ in range(2):
            await store.swept(unswept[:1])
        assert await store.unswept(9) == unswept[1:]
        await store.swept(unswept)
        assert await store.unswept(9) == []
        assert await store.tombstones(NOW, 9) == []
        [old] = await store.tombstones(NOW + 10.0, 9)
        assert old.id == job_id(0)
        for _ in range(2):
            await store.forget([old])
        assert await store.get(TENANT, job_id(0)) is None
        assert [await store.reserved(TENANT, f"key {n}") is None for n in range(3)] == [True, False, False]
        assert [job.id for job in await store.tombstones(NOW + 99.0, 9)] == [job_id(1)]

    async def test_what_is_not_deleted_is_neither_swept_nor_forgotten(self, store: ResultStore, feed: Any) -> None:
        await feed(logged(1))
        job = await store.get(TENANT, job_id(1))
        assert job is not None
        await store.swept([job])
        await store.forget([job])
        assert await store.get(TENANT, job_id(1)) == job
        assert len(await store.due(NOW + 10 * 86_400.0, 9)) == 1

    async def test_while_it_is_rebuilt_nobody_is_due(self, store: ResultStore) -> None:
        async def ends() -> dict[str, str]:
            return {"log": START}

        await store.begin_rebuild(ends)
        for asked in (store.due(NOW, 9), store.unswept(9), store.tombstones(NOW, 9)):
            with pytest.raises(Unavailable) as refused:
                await asked
            assert refused.value.code == "rebuilding"
