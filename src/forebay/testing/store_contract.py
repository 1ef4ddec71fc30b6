"""The promises of `ports.store`, as tests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.job import Job, JobStatus, apply
from forebay.core.payload import JSON, BlobRef, Payload
from forebay.ports.event_log import START, LogBatch
from forebay.ports.store import ResultStore
from forebay.testing.samples import TENANT, event, failed, job_id, request, succeeded

LONG_S = 30.0
OUTPUT = Payload(media_type=JSON, data=b'[{"label":"cat","score":0.5}]')


class StorePlace(ABC):
    """Where a store lives."""

    survives_restart: bool

    @abstractmethod
    async def open(self) -> ResultStore: ...

    @abstractmethod
    async def close(self, store: ResultStore) -> None: ...


class Feeder:
    """Projects facts as the next batches of one source."""

    def __init__(self, store: ResultStore, source: str = "log") -> None:
        self.store = store
        self.source = source
        self.position = START
        self._number = 0

    async def __call__(self, *facts: JobRequest | JobEvent) -> list[Job]:
        self._number += 1
        batch = LogBatch(source=self.source, start=self.position, end=f"p{self._number}", facts=facts)
        changed = await self.store.project([batch])
        assert changed is not None
        self.position = batch.end
        return changed


def folded(*facts: JobRequest | JobEvent) -> Job:
    job: Job | None = None
    for fact in facts:
        job = apply(job, fact)
    assert job is not None
    return job


@pytest.mark.anyio
class StoreContract:
    @pytest.fixture
    def place(self) -> StorePlace:
        raise NotImplementedError("say where the store lives")

    @pytest.fixture
    async def store(self, place: StorePlace) -> AsyncIterator[ResultStore]:
        store = await place.open()
        yield store
        await place.close(store)

    @pytest.fixture
    def feed(self, store: ResultStore) -> Feeder:
        return Feeder(store)

    # -------------------------------------------------------------------------------------------------- what is seen

    async def test_an_unknown_job_is_none(self, store: ResultStore) -> None:
        assert await store.get(TENANT, job_id(1)) is None

    async def test_each_step_of_a_job_is_returned_and_seen(self, store: ResultStore, feed: Feeder) -> None:
        facts: list[JobRequest | JobEvent] = [
            request(1, metadata={"order": 7, "nested": {"a": [1, 2.5, None, "é"]}}),
            event(1, EventKind.STARTED),
            event(1, EventKind.QUEUED, at_s=1.5),
            event(1, EventKind.STARTED, attempt=2, at_s=1.75),
            succeeded(1, OUTPUT, attempt=2),
        ]
        for count, fact in enumerate(facts, start=1):
            expected = folded(*facts[:count])
            assert await feed(fact) == [expected]
            assert await store.get(TENANT, job_id(1)) == expected

    async def test_a_batch_may_hold_a_whole_life(self, store: ResultStore, feed: Feeder) -> None:
        facts = (request(1), event(1, EventKind.STARTED), succeeded(1, OUTPUT))
        assert await feed(*facts) == [folded(*facts)]
        assert await store.get(TENANT, job_id(1)) == folded(*facts)

    async def test_a_batch_may_hold_many_jobs(self, store: ResultStore, feed: Feeder) -> None:
        await feed(*(request(n) for n in range(150)))
        changed = await feed(*(event(n, EventKind.STARTED) for n in range(150)), *(failed(n) for n in range(0, 150, 2)))
        assert sorted(job.id for job in changed) == [job_id(n) for n in range(150)]
        for n in range(150):
            job = await store.get(TENANT, job_id(n))
            assert job is not None
            assert job.status is (JobStatus.RUNNING if n % 2 else JobStatus.FAILED)

    @pytest.mark.parametrize(
        "final", [failed(1), event(1, EventKind.CANCELED, attempt=0), event(1, EventKind.EXPIRED, attempt=0)]
    )
    async def test_a_final_state_without_an_output_is_seen(
        self, store: ResultStore, feed: Feeder, final: JobEvent
    ) -> None:
        await feed(request(1), final)
        assert await store.get(TENANT, job_id(1)) == folded(request(1), final)

    @pytest.mark.parametrize(
        "output",
        [
            Payload(media_type="application/octet-stream", data=bytes(range(256)) * 1000),
            Payload(media_type="text/plain", data="naïve ✓".encode()),
            Payload(media_type=JSON, data=b""),
            Payload(media_type="image/png", blob=BlobRef(name="default/j/d", size_bytes=10**7, sha256="ab" * 32)),
        ],
        ids=["bytes", "text", "empty", "blob"],
    )
    async def test_the_output_is_the_same_bytes(self, store: ResultStore, feed: Feeder, output: Payload) -> None:
        await feed(request(1))
        await feed(succeeded(1, output))
        job = await store.get(TENANT, job_id(1))
        assert job is not None
        assert job.output == output

    async def test_a_job_is_seen_by_its_tenant_only(self, store: ResultStore, feed: Feeder) -> None:
        await feed(request(1), request(1, tenant="other", model="secret"))
        mine, theirs = await store.get(TENANT, job_id(1)), await store.get("other", job_id(1))
        assert mine is not None
        assert theirs is not None
        assert (mine.model, theirs.model) == ("sample", "secret")
        assert await store.get("nobody", job_id(1)) is None
        assert [job.tenant for job in await store.list_jobs("other", model=None, status=None, limit=9)] == ["other"]

    # ----------------------------------------------------------------------------------------------- final and stubs

    async def test_a_final_job_never_changes(self, store: ResultStore, feed: Feeder) -> None:
        await feed(request(1), succeeded(1, OUTPUT))
        before = await store.get(TENANT, job_id(1))
        other = Payload(media_type=JSON, data=b'"another"')
        for late in (
            succeeded(1, other, attempt=2),
            failed(1, attempt=2),
            event(1, EventKind.CANCELED, attempt=0),
            event(1, EventKind.STARTED, attempt=9),
            event(1, EventKind.QUEUED, attempt=9),
            request(1, model="changed", metadata={"a": 1}),
        ):
            assert await feed(late) == []
        assert await store.get(TENANT, job_id(1)) == before

    async def test_repeating_facts_changes_nothing(self, store: ResultStore, feed: Feeder) -> None:
        facts = (request(1), event(1, EventKind.STARTED), request(2))
        await feed(*facts)
        before = [await store.get(TENANT, job_id(n)) for n in (1, 2)]
        assert await feed(*facts) == []
        assert [await store.get(TENANT, job_id(n)) for n in (1, 2)] == before

    async def test_a_stub_is_invisible_until_its_request_comes(self, store: ResultStore, feed: Feeder) -> None:
        for early in (event(1, EventKind.STARTED), succeeded(1, OUTPUT)):
            assert await feed(early) == []
            assert await store.get(TENANT, job_id(1)) is None
            assert await store.list_jobs(TENANT, model=None, status=None, limit=9) == []
        expected = folded(request(1), event(1, EventKind.STARTED), succeeded(1, OUTPUT))
        assert await feed(request(1)) == [expected]
        assert await store.get(TENANT, job_id(1)) == expected

    async def test_a_running_stub_becomes_a_running_job(self, store: ResultStore, feed: Feeder) -> None:
        await feed(event(1, EventKind.STARTED))
        await feed(request(1))
        await feed(succeeded(1, OUTPUT))
        expected = folded(request(1), event(1, EventKind.STARTED), succeeded(1, OUTPUT))
        assert await store.get(TENANT, job_id(1)) == expected

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    async def test_rows_do_not_depend_on_how_facts_fall_into_batches(
        self, store: ResultStore, feed: Feeder, size: int
    ) -> None:
        facts: list[JobRequest | JobEvent] = []
        for n in range(6):
            facts += [event(n, EventKind.STARTED), request(n), succeeded(n, OUTPUT) if n % 2 else failed(n)]
        for start in range(0, len(facts), size):
            await feed(*facts[start : start + size])
        for n in range(6):
            assert await store.get(TENANT, job_id(n)) == folded(*facts[3 * n : 3 * n + 3])

    # ------------------------------------------------------------------------------------------------------ positions

    async def test_a_source_begins_at_the_start_and_moves_with_each_batch(
        self, store: ResultStore, feed: Feeder
    ) -> None:
        assert await store.position("log") == START
        await feed(request(1))
        assert await store.position("log") == "p1"
        await feed()
        assert await store.position("log") == "p2"
        assert await store.position("another") == START

    async def test_an_empty_batch_at_the_start_may_stay_there(self, store: ResultStore) -> None:
        for _ in range(2):
            assert await store.project([LogBatch(source="log", start=START, end=START, facts=())]) == []
        assert await store.position("log") == START

    async def test_sources_move_on_their_own(self, store: ResultStore) -> None:
        await Feeder(store, "a")(request(1))
        await Feeder(store, "b")(request(2))
        assert await store.get(TENANT, job_id(1)) is not None
        assert await store.get(TENANT, job_id(2)) is not None

    @pytest.mark.parametrize("start", [START, "p1", "elsewhere"])
    async def test_a_batch_from_another_position_changes_nothing(
        self, store: ResultStore, feed: Feeder, start: str
    ) -> None:
        await feed(request(1))
        await feed(request(2))
        late = LogBatch(source="log", start=start, end="p9", facts=(request(3), failed(1)))
        assert await store.project([late]) is None
        assert await store.position("log") == "p2"
        assert await store.get(TENANT, job_id(3)) is None
        assert await store.get(TENANT, job_id(1)) == folded(request(1))

    async def test_of_two_projectors_at_one_position_one_wins(self, store: ResultStore) -> None:
        batches = [LogBatch(source="log", start=START, end=f"e{n}", facts=(request(n),)) for n in range(8)]
        results = await asyncio.gather(*(store.project([batch]) for batch in batches))
        won = [n for n, result in enumerate(results) if result is not None]
        assert len(won) == 1
        assert await store.position("log") == f"e{won[0]}"
        seen = [n for n in range(8) if await store.get(TENANT, job_id(n)) is not None]
        assert seen == won

    async def test_rows_and_position_are_there_after_a_restart(self, place: StorePlace) -> None:
        store = await place.open()
        await Feeder(store)(request(1), succeeded(1, OUTPUT))
        await place.close(store)
        store = await place.open()
        expected = folded(request(1), succeeded(1, OUTPUT)) if place.survives_restart else None
        assert await store.get(TENANT, job_id(1)) == expected
        assert await store.position("log") == ("p1" if place.survives_restart else START)
        await place.close(store)

    # ----------------------------------------------------------------------------------------------------------- list

    async def test_jobs_are_listed_newest_first_without_outputs(self, store: ResultStore, feed: Feeder) -> None:
        numbers = [3, 1, 5, 2, 4]
        await feed(*(request(n) for n in numbers))
        await feed(*(succeeded(n, OUTPUT) for n in numbers))
        listed = await store.list_jobs(TENANT, model=None, status=None, limit=4)
        assert listed == [replace(folded(request(n), succeeded(n, OUTPUT)), output=None) for n in (5, 4, 3, 2)]

    async def test_jobs_are_listed_by_model_and_status(self, store: ResultStore, feed: Feeder) -> None:
        await feed(*(request(n, model="odd" if n % 2 else "even") for n in range(6)))
        await feed(failed(1), failed(2))

        async def numbers(model: str | None, status: str | None) -> list[str]:
            return [job.id for job in await store.list_jobs(TENANT, model=model, status=status, limit=9)]

        assert await numbers("odd", None) == [job_id(n) for n in (5, 3, 1)]
        assert await numbers(None, "failed") == [job_id(n) for n in (2, 1)]
        assert await numbers("even", "queued") == [job_id(n) for n in (4, 0)]
        assert await numbers("absent", None) == []

    # --------------------------------------------------------------------------------------------------- subscription

    async def test_a_subscriber_is_woken_by_a_change(self, store: ResultStore, feed: Feeder) -> None:
        async with store.subscribe(TENANT, job_id(1)) as subscription:
            waiting = asyncio.create_task(subscription.changed(LONG_S))
            for _ in range(20):  # until it waits
                await asyncio.sleep(0)
            await feed(request(1))
            async with asyncio.timeout(LONG_S / 2):
                assert await waiting
            assert await store.get(TENANT, job_id(1)) is not None

    async def test_a_change_between_subscribing_and_waiting_is_not_missed(
        self, store: ResultStore, feed: Feeder
    ) -> None:
        async with store.subscribe(TENANT, job_id(1)) as subscription:
            await feed(request(1))
            async with asyncio.timeout(LONG_S / 2):
                assert await subscription.changed(LONG_S)

    @pytest.mark.parametrize("timeout_s", [0.0, 0.01])
    async def test_a_wait_without_a_change_ends(self, store: ResultStore, feed: Feeder, timeout_s: float) -> None:
        async with store.subscribe(TENANT, job_id(1)) as subscription:
            await feed(request(2))
            assert not await subscription.changed(timeout_s)

    async def test_every_subscriber_of_a_job_is_woken(self, store: ResultStore, feed: Feeder) -> None:
        async with (
            store.subscribe(TENANT, job_id(1)) as one,
            store.subscribe(TENANT, job_id(1)) as two,
        ):
            waiting = [asyncio.create_task(subscription.changed(LONG_S)) for subscription in (one, two)]
            await feed(request(1))
            async with asyncio.timeout(LONG_S / 2):
                assert await asyncio.gather(*waiting) == [True, True]

    async def test_a_subscriber_that_leaves_does_not_stop_another(self, store: ResultStore, feed: Feeder) -> None:
        async with store.subscribe(TENANT, job_id(1)) as staying:
            async with store.subscribe(TENANT, job_id(1)):
                pass
            await feed(request(1))
            async with asyncio.timeout(LONG_S / 2):
                assert await staying.changed(LONG_S)
