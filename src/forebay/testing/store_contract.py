"""The promises of `ports.store`, as tests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobError, JobEvent, JobRequest
from forebay.core.fact import Fact
from forebay.core.job import Job, JobStatus, apply, deletion
from forebay.core.partials import Partial
from forebay.core.payload import JSON, BlobRef, Payload
from forebay.core.queues import LaneCount
from forebay.core.quota import Use
from forebay.core.reservation import KEEP_S, Reservation
from forebay.ports.event_log import START, LogBatch
from forebay.ports.reservations import Claim
from forebay.ports.store import JobPage, JobQuery, ResultStore
from forebay.testing.due_contract import DueContract
from forebay.testing.job_batches_contract import JobBatchesContract
from forebay.testing.outbox_contract import OutboxContract
from forebay.testing.samples import TENANT, emitted, event, failed, job_id, progressed, request, succeeded

LONG_S = 30.0
OUTPUT = Payload(media_type=JSON, data=b'[{"label":"cat","score":0.5}]')


class StorePlace(ABC):
    """Where a store lives. `shared`: several may be open at once, as of several processes."""

    survives_restart: bool
    shared: bool = False

    @abstractmethod
    async def open(self) -> ResultStore: ...

    @abstractmethod
    async def close(self, store: ResultStore) -> None: ...


def reservation(number: int) -> Reservation:
    """Of the key "key", for the sample request of this number."""
    return Reservation(
        tenant=TENANT,
        key="key",
        job_id=job_id(number),
        fingerprint="same",
        accepted_at=request(number).accepted_at,
    )


def keyed(number: int, key: str = "key") -> JobRequest:
    """That request, submitted with a key."""
    return replace(request(number), key=key, fingerprint="same")


def query(tenant: str = TENANT, **asked: Any) -> JobQuery:
    return JobQuery(tenant=tenant, **{"limit": 9, "look": 1000, **asked})


class Feeder:
    """Projects facts as the next batches of one source."""

    def __init__(self, store: ResultStore, source: str = "log") -> None:
        self.store = store
        self.source = source
        self.position = START
        self._number = 0

    async def __call__(self, *facts: Fact) -> list[Job]:
        self._number += 1
        batch = LogBatch(source=self.source, start=self.position, end=f"p{self._number}", facts=facts)
        changed = await self.store.project([batch])
        assert changed is not None
        self.position = batch.end
        return changed


def batch(source: str, start: str, end: str, *facts: JobRequest | JobEvent) -> LogBatch:
    return LogBatch(source=source, start=start, end=end, facts=facts)


def ending(ends: Mapping[str, str]) -> Callable[[], Awaitable[Mapping[str, str]]]:
    """A log that ends there, for `begin_rebuild`."""

    async def asked() -> Mapping[str, str]:
        return ends

    return asked


async def chunks(store: ResultStore, number: int, attempt: int = 0, chunk: int = 0) -> list[tuple[int, int, bytes]]:
    """Attempt, number of the first and JSON of each row from there on."""
    rows = await store.partials(TENANT, job_id(number), attempt, chunk, 100)
    return [(row.attempt, row.first, row.chunks) for row in rows]


def folded(*facts: JobRequest | JobEvent) -> Job:
    job: Job | None = None
    for fact in facts:
        job = apply(job, fact)
    assert job is not None
    return job


@pytest.mark.anyio
class StoreContract(JobBatchesContract, DueContract, OutboxContract):
    @pytest.fixture
    def place(self) -> StorePlace:
        raise NotImplementedError("say where the store lives")

    @pytest.fixture
    async def store(self, place: StorePlace) -> AsyncIterator[ResultStore]:
        store = await place.open()
        yield store
        await place.close(store)

    @pytest.fixture
    async def other(self, place: StorePlace, store: ResultStore) -> AsyncIterator[ResultStore]:
        """Another store of the same place, where there can be one."""
        if not place.shared:
            yield store
            return
        other = await place.open()
        yield other
        await place.close(other)

    @pytest.fixture
    def feed(self, store: ResultStore) -> Feeder:
        return Feeder(store)

    # -------------------------------------------------------------------------------------------------- what is seen

    async def test_an_unknown_job_is_none(self, store: ResultStore) -> None:
        assert await store.get(TENANT, job_id(1)) is None

    async def test_each_step_of_a_job_is_returned_and_seen(self, store: ResultStore, feed: Feeder) -> None:
        facts: list[JobRequest | JobEvent] = [
            replace(
                request(1, metadata={"order": 7, "nested": {"a": [1, 2.5, None, "é"]}}), retry_of=job_id(0), place="a:7"
            ),
            event(1, EventKind.STARTED),
            replace(
                event(1, EventKind.QUEUED, at_s=1.5),
                error=JobError(code="not_yet", message="é", retryable=True),
                due_at=request(1).accepted_at + 1.625,
            ),
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

    @pytest.mark.parametrize(
        "name", ["naïve ✓", "nul \0", "\0", "\\", "\\0000", "\\u0000", "\U0001f600\u202e\ufffd\ufeff"]
    )
    async def test_every_name_comes_back_as_it_was(self, store: ResultStore, feed: Feeder, name: str) -> None:
        output = Payload(media_type=name, blob=BlobRef(name=name, size_bytes=1, sha256=name))
        facts = (
            replace(
                request(1, model=name, metadata={name: name}), job_id=name, tenant=name, lane=name, durability=name
            ),
            replace(succeeded(1, output), job_id=name, tenant=name, model_version=name),
        )
        assert await feed(*facts) == [folded(*facts)]
        assert await store.get(name, name) == folded(*facts)
        page = await store.list_jobs(query(name, model=name, status="succeeded"))
        assert page.jobs == [replace(folded(*facts), output=None)]

    @pytest.mark.parametrize("name", ["\0", "\\d800", "'; DROP TABLE jobs; --", "x" * 10_000])
    async def test_nobody_has_a_strange_name(self, store: ResultStore, feed: Feeder, name: str) -> None:
        await feed(request(1))
        assert await store.get(name, job_id(1)) is None
        assert await store.get(TENANT, name) is None
        assert (await store.list_jobs(query(model=name))).jobs == []
        assert (await store.list_jobs(query(status=name))).jobs == []

    async def test_a_job_is_seen_by_its_tenant_only(self, store: ResultStore, feed: Feeder) -> None:
        await feed(request(1), request(1, tenant="other", model="secret"))
        mine, theirs = await store.get(TENANT, job_id(1)), await store.get("other", job_id(1))
        assert mine is not None
        assert theirs is not None
        assert (mine.model, theirs.model) == ("sample", "secret")
        assert await store.get("nobody", job_id(1)) is None
        assert [job.tenant for job in (await store.list_jobs(query("other"))).jobs] == ["other"]

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

    async def test_how_each_attempt_of_a_failed_job_ended_is_kept(self, store: ResultStore, feed: Feeder) -> None:
        await feed(request(1), event(1, EventKind.STARTED))
        await feed(event(1, EventKind.STARTED, attempt=2))
        await feed(failed(1, attempt=2))
        job = await store.get(TENANT, job_id(1))
        assert job is not None
        assert [(one.attempt, one.worker, one.error and one.error.code) for one in job.history] == [
            (1, "w-1", None),
            (2, "w-1", "model_failed"),
        ]

    async def test_of_a_request_that_stands_in_the_log_twice_one_place_is_kept(
        self, store: ResultStore, feed: Feeder
    ) -> None:
        await feed(replace(request(1), place="b:1"), failed(1))
        for place in ("c:1", "", "a:1", "b:1"):
            await feed(replace(request(1), place=place))
        job = await store.get(TENANT, job_id(1))
        assert job is not None
        assert job.place == "a:1"

    async def test_a_stub_is_invisible_until_its_request_comes(self, store: ResultStore, feed: Feeder) -> None:
        for early in (event(1, EventKind.STARTED), succeeded(1, OUTPUT)):
            assert await feed(early) == []
            assert await store.get(TENANT, job_id(1)) is None
            assert (await store.list_jobs(query())).jobs == []
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

    # ------------------------------------------------------------------------------------- progress and partial output

    async def test_how_far_an_attempt_is_can_be_seen_while_it_runs(self, store: ResultStore, feed: Feeder) -> None:
        facts: list[JobRequest | JobEvent] = [
            request(1),
            event(1, EventKind.STARTED),
            progressed(1, 0.25, sequence=1),
            emitted(1, "a", {"b": None}),
            progressed(1, 0.5, sequence=3),
            event(1, EventKind.QUEUED),
            event(1, EventKind.STARTED, attempt=2),
            progressed(1, 0.125, sequence=1, attempt=2),
            succeeded(1, OUTPUT, attempt=2),
        ]
        for count, fact in enumerate(facts, start=1):
            assert await feed(fact) == [folded(*facts[:count])]
            assert await store.get(TENANT, job_id(1)) == folded(*facts[:count])

    async def test_chunks_can_be_read_from_any_of_them_on(self, store: ResultStore, feed: Feeder) -> None:
        await feed(request(1), event(1, EventKind.STARTED))
        await feed(emitted(1, 0), emitted(1, 1, 2, 3, first=1))
        await feed(emitted(1, 4, 5, first=4))
        rows = [(1, 0, b"[0]"), (1, 1, b"[1,2,3]"), (1, 4, b"[4,5]")]
        for first, found in [(0, rows), (1, rows[1:]), (3, rows[1:]), (4, rows[2:]), (5, rows[2:]), (6, [])]:
            assert await chunks(store, 1, 1, first) == found
        assert await store.partials(TENANT, job_id(1), 0, 0, 2) == [
            Partial(attempt=1, first=0, last=0, chunks=b"[0]"),
            Partial(attempt=1, first=1, last=3, chunks=b"[1,2,3]"),
        ]
        assert await chunks(store, 1, 2, 0) == []
        assert await chunks(store, 2) == []
        assert await store.partials("other", job_id(1), 0, 0, 9) == []

    async def test_chunks_that_are_repeated_or_come_after_a_gap_are_ignored(
        self, store: ResultStore, feed: Feeder
    ) -> None:
        await feed(request(1), event(1, EventKind.STARTED), emitted(1, 0, 1))
        for ignored in (
            emitted(1, 0, 1),
            emitted(1, 1, first=1),
            emitted(1, 3, first=3),
            emitted(1, 2, first=2, attempt=2),
        ):
            assert await feed(ignored) == []
        await feed(emitted(1, 2, first=2))
        assert await chunks(store, 1) == [(1, 0, b"[0,1]"), (1, 2, b"[2]")]

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    async def test_another_attempt_begins_anew(self, store: ResultStore, feed: Feeder, size: int) -> None:
        facts: list[JobRequest | JobEvent] = [
            request(1),
            event(1, EventKind.STARTED),
            emitted(1, "old"),
            emitted(1, "older", first=1),
            event(1, EventKind.STARTED, attempt=2),
            emitted(1, "late", first=2),
            emitted(1, "new", attempt=2),
        ]
        for start in range(0, len(facts), size):
            await feed(*facts[start : start + size])
        assert await chunks(store, 1) == [(2, 0, b'["new"]')]
        await feed(event(1, EventKind.QUEUED, attempt=2))
        assert await chunks(store, 1) == []

    @pytest.mark.parametrize("final", [succeeded(1, OUTPUT), failed(1), event(1, EventKind.CANCELED, attempt=0)])
    async def test_chunks_stay_when_the_job_is_final_and_none_follow(
        self, store: ResultStore, feed: Feeder, final: JobEvent
    ) -> None:
        await feed(request(1), event(1, EventKind.STARTED), emitted(1, "a"))
        await feed(emitted(1, "b", first=1), final, emitted(1, "c", first=2))
        assert await feed(emitted(1, "c", first=2), progressed(1, 1.0, sequence=1)) == []
        assert await chunks(store, 1) == [(1, 0, b'["a"]'), (1, 1, b'["b"]')]

    @pytest.mark.parametrize("size", [1, 100])
    async def test_a_job_that_is_deleted_leaves_no_chunk(self, store: ResultStore, feed: Feeder, size: int) -> None:
        facts: list[JobRequest | JobEvent] = [request(1), event(1, EventKind.STARTED), emitted(1, "a"), failed(1)]
        facts += [deletion(folded(*facts), at=request(1).accepted_at + 9.0), emitted(1, "b", first=1)]
        for start in range(0, len(facts), size):
            await feed(*facts[start : start + size])
        assert await chunks(store, 1) == []

    async def test_chunks_of_a_stub_are_there_once_its_request_comes(self, store: ResultStore, feed: Feeder) -> None:
        await feed(event(1, EventKind.STARTED), emitted(1, "a"))
        await feed(request(1))
        assert await store.get(TENANT, job_id(1)) == folded(request(1), event(1, EventKind.STARTED), emitted(1, "a"))
        assert await chunks(store, 1) == [(1, 0, b'["a"]')]

    async def test_nobody_reads_chunks_during_a_rebuild_which_makes_them_anew(
        self, store: ResultStore, other: ResultStore, feed: Feeder
    ) -> None:
        facts = (request(1), event(1, EventKind.STARTED), emitted(1, "a"))
        await feed(*facts)
        await store.begin_rebuild(ending({"log": "p1"}))
        for one in (store, other):
            with pytest.raises(Unavailable):
                await chunks(one, 1)
        feed.position = START
        await feed(*facts)
        await store.end_rebuild()
        for one in (store, other):
            assert await chunks(one, 1) == [(1, 0, b'["a"]')]

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

    async def test_the_sources_of_a_batch_advance_together(self, store: ResultStore) -> None:
        first = [batch("a", START, "a1", request(1)), batch("b", START, "b1", event(1, EventKind.STARTED))]
        assert await store.project(first) == [folded(request(1), event(1, EventKind.STARTED))]
        assert await store.positions() == {"a": "a1", "b": "b1"}
        assert await store.project([batch("b", "b1", "b2", failed(1)), batch("a", "a1", "a2")]) is not None
        assert await store.positions() == {"a": "a2", "b": "b2"}

    async def test_a_position_is_where_a_batch_ended_whatever_it_is_called(self, store: ResultStore) -> None:
        ends = {"requests:0": "42", "naïve ✓": "ü", "nul \0": "\0", "back\\slash \\0000": "\\", " ": " "}
        await store.project([batch(source, START, end) for source, end in ends.items()])
        assert await store.positions() == ends
        assert {source: await store.position(source) for source in ends} == ends
        again = [batch(source, end, f"{end}'") for source, end in ends.items()]
        assert await store.project(again) == []

    @pytest.mark.parametrize("late", [0, 1, 2])
    async def test_one_source_behind_and_nothing_changes(self, store: ResultStore, late: int) -> None:
        names = ("a", "b", "c")
        for name in names[:2]:
            await store.project([batch(name, START, "1", request(9))])
        starts = ["1", "1", START]
        starts[late] = "elsewhere"
        batches = [batch(names[n], starts[n], "2", request(n), failed(9)) for n in range(3)]
        assert await store.project(batches) is None
        assert await store.positions() == {"a": "1", "b": "1"}
        assert [await store.get(TENANT, job_id(n)) for n in range(3)] == [None] * 3
        assert await store.get(TENANT, job_id(9)) == folded(request(9))

    async def test_a_projector_that_was_paused_overwrites_nothing(self, store: ResultStore, other: ResultStore) -> None:
        """A hundred times: one reads a batch and stops, another goes on beyond it, the first wakes."""
        position = START
        for number in range(100):
            paused = batch("log", position, f"{number}.1", request(number), failed(number))
            sleeper, runner = (store, other) if number % 2 else (other, store)
            kept = succeeded(number, OUTPUT)
            position = f"{number}.9"
            assert await runner.project([replace(paused, facts=(request(number), kept), end=position)]) is not None
            assert await sleeper.project([paused]) is None
            assert await sleeper.get(TENANT, job_id(number)) == folded(request(number), kept)
            assert await sleeper.position("log") == position

    async def test_two_projectors_at_once_apply_each_batch_once(self, store: ResultStore, other: ResultStore) -> None:
        """A hundred rounds, each about jobs of the rounds before as well."""
        position = START
        facts: list[JobRequest | JobEvent] = []
        for number in range(100):
            new: list[JobRequest | JobEvent] = [request(number)]
            if number > 1:
                new += [event(number - 1, EventKind.STARTED), succeeded(number - 2, OUTPUT)]
            rivals = [batch("log", position, f"{number}.{n}", *new) for n in range(2)]
            results = await asyncio.gather(store.project([rivals[0]]), other.project([rivals[1]]))
            [won] = [n for n, changed in enumerate(results) if changed is not None]
            facts += new
            position = rivals[won].end
            assert await store.position("log") == position
        for number in range(100):
            of_job = [fact for fact in facts if fact.job_id == job_id(number)]
            assert await other.get(TENANT, job_id(number)) == folded(*of_job)

    async def test_requests_and_events_from_two_projectors_meet_in_one_row(
        self, store: ResultStore, other: ResultStore
    ) -> None:
        """A hundred rounds: each projector has a source of its own, and both see facts about the same jobs at once."""
        a, b = Feeder(store, "requests"), Feeder(other, "events")
        for number in range(0, 300, 3):
            jobs = range(number, number + 3)
            mine = [request(n) for n in jobs]
            theirs = [fact for n in reversed(jobs) for fact in (event(n, EventKind.STARTED), succeeded(n, OUTPUT))]
            await asyncio.gather(a(*mine), b(*theirs))
        for number in range(300):
            expected = folded(request(number), event(number, EventKind.STARTED), succeeded(number, OUTPUT))
            assert await store.get(TENANT, job_id(number)) == expected

    async def test_rows_and_position_are_there_after_a_restart(self, place: StorePlace) -> None:
        store = await place.open()
        await Feeder(store)(request(1), succeeded(1, OUTPUT))
        await place.close(store)
        store = await place.open()
        expected = folded(request(1), succeeded(1, OUTPUT)) if place.survives_restart else None
        assert await store.get(TENANT, job_id(1)) == expected
        assert await store.position("log") == ("p1" if place.survives_restart else START)
        await place.close(store)

    # -------------------------------------------------------------------------------------------------------- rebuild

    async def test_a_rebuild_begins_with_nothing(self, store: ResultStore, other: ResultStore, feed: Feeder) -> None:
        await feed(request(1), succeeded(1, OUTPUT), event(2, EventKind.STARTED))
        assert await store.rebuilding() is None
        await store.begin_rebuild(ending({"log": "p1", "naïve \0": "✓"}))
        for one in (store, other):
            assert await one.rebuilding() == {"log": "p1", "naïve \0": "✓"}
            assert await one.positions() == {}
            assert await one.position("log") == START
        await store.end_rebuild()
        for one in (store, other):
            assert await one.rebuilding() is None
            assert await one.get(TENANT, job_id(1)) is None
            assert (await one.list_jobs(query())).jobs == []
        assert await other.project([batch("log", "p1", "p2", request(3))]) is None

    async def test_a_rebuild_of_a_log_whose_end_is_unknown_changes_nothing(
        self, store: ResultStore, feed: Feeder
    ) -> None:
        async def away() -> Mapping[str, str]:
            raise Unavailable("nobody tells where the log ends")

        await feed(request(1))
        with pytest.raises(Unavailable, match="where the log ends"):
            await store.begin_rebuild(away)
        assert await store.rebuilding() is None
        assert await store.get(TENANT, job_id(1)) == folded(request(1))

    async def test_nobody_reads_jobs_during_a_rebuild(
        self, store: ResultStore, other: ResultStore, feed: Feeder
    ) -> None:
        await feed(request(1))
        await store.begin_rebuild(ending({"log": "p1"}))
        feed.position = START
        for _ in range(2):
            for one in (store, other):
                with pytest.raises(Unavailable) as reading:
                    await one.get(TENANT, job_id(1))
                with pytest.raises(Unavailable) as listing:
                    await one.list_jobs(query())
                assert (reading.value.code, listing.value.code) == ("rebuilding", "rebuilding")
            await feed(request(1))
        await other.end_rebuild()
        for one in (store, other):
            assert await one.get(TENANT, job_id(1)) == folded(request(1))

    async def test_a_rebuild_outlives_who_began_it(self, place: StorePlace) -> None:
        store = await place.open()
        await store.begin_rebuild(ending({"log": "p7"}))
        await place.close(store)
        store = await place.open()
        if place.survives_restart:
            assert await store.rebuilding() == {"log": "p7"}
            with pytest.raises(Unavailable):
                await store.get(TENANT, job_id(1))
        else:
            assert await store.rebuilding() is None
        await store.begin_rebuild(ending({"log": "p8"}))
        assert await store.rebuilding() == {"log": "p8"}
        await store.end_rebuild()
        await store.end_rebuild()
        assert await store.rebuilding() is None
        await place.close(store)

    async def test_the_same_facts_give_the_same_jobs_again(self, store: ResultStore, feed: Feeder) -> None:
        facts: list[JobRequest | JobEvent] = []
        for n in range(20):
            facts += [event(n, EventKind.STARTED), request(n, metadata={"b": n, "a": [1, "é"]})]
            facts += [[succeeded(n, OUTPUT), failed(n)], [event(n, EventKind.QUEUED, at_s=1.5)]][n % 2]
        await feed(*facts)
        before = [await store.get(TENANT, job_id(n)) for n in range(20)]
        await store.begin_rebuild(ending(await store.positions()))
        again = Feeder(store)
        for size in (1, 2, 3, 5, 100):
            await again(*facts[:size])
            del facts[:size]
        await store.end_rebuild()
        assert [await store.get(TENANT, job_id(n)) for n in range(20)] == before

    # ----------------------------------------------------------------------------------------------------------- list

    async def test_jobs_are_listed_newest_first_without_outputs(self, store: ResultStore, feed: Feeder) -> None:
        numbers = [3, 1, 5, 2, 4]
        await feed(*(request(n) for n in numbers))
        await feed(*(succeeded(n, OUTPUT) for n in numbers))
        page = await store.list_jobs(query(limit=4))
        assert page.jobs == [replace(folded(request(n), succeeded(n, OUTPUT)), output=None) for n in (5, 4, 3, 2)]

    async def test_jobs_are_listed_by_model_and_status(self, store: ResultStore, feed: Feeder) -> None:
        await feed(*(request(n, model="odd" if n % 2 else "even") for n in range(6)))
        await feed(failed(1), failed(2))

        async def numbers(**asked: Any) -> list[str]:
            return [job.id for job in (await store.list_jobs(query(**asked))).jobs]

        assert await numbers(model="odd") == [job_id(n) for n in (5, 3, 1)]
        assert await numbers(status="failed") == [job_id(n) for n in (2, 1)]
        assert await numbers(model="even", status="queued") == [job_id(n) for n in (4, 0)]
        assert await numbers(model="absent") == []

    async def test_jobs_are_listed_by_the_time_of_their_acceptance(self, store: ResultStore, feed: Feeder) -> None:
        await feed(*(request(n) for n in range(5)))
        at = [request(n).accepted_at for n in range(5)]

        async def listed(**asked: Any) -> list[str]:
            return [job.id for job in (await store.list_jobs(query(**asked))).jobs]

        assert await listed(created_after=at[2]) == [job_id(n) for n in (4, 3)]
        assert await listed(created_before=at[2]) == [job_id(n) for n in (1, 0)]
        assert await listed(created_after=at[0], created_before=at[3]) == [job_id(n) for n in (2, 1)]
        assert await listed(created_after=at[4]) == []

    @pytest.mark.parametrize("look", [1, 2, 3, 7, 100])
    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    @pytest.mark.parametrize("asked", [{}, {"model": "odd"}, {"status": "failed"}, {"model": "absent"}])
    async def test_pages_that_follow_each_other_give_each_job_once(
        self, store: ResultStore, feed: Feeder, asked: Mapping[str, str], limit: int, look: int
    ) -> None:
        """Though several were accepted in the same instant, and others come meanwhile."""
        jobs = [request(n, model="odd" if n % 2 else "even") for n in range(7)]
        await feed(*(replace(job, accepted_at=jobs[n // 3 * 3].accepted_at) for n, job in enumerate(jobs)))
        await feed(failed(1), failed(2), failed(6))
        expected = [job.id for job in (await store.list_jobs(query(**asked))).jobs]
        found: list[str] = []
        after = None
        for number in range(20):
            page = await store.list_jobs(query(after=after, limit=limit, look=look, **asked))
            assert len(page.jobs) <= limit
            found += [job.id for job in page.jobs]
            await feed(request(100 + number))
            if page.next is None:
                break
            after = page.next
        assert found == expected

    async def test_one_page_looks_at_a_bounded_number_of_jobs(self, store: ResultStore, feed: Feeder) -> None:
        await feed(*(request(n, model="rare" if n == 0 else "usual") for n in range(10)))
        page = await store.list_jobs(query(model="rare", look=4))
        assert page == JobPage([], (request(6).accepted_at, job_id(6)))
        page = await store.list_jobs(query(model="rare", look=6, after=page.next))
        assert [job.id for job in page.jobs] == [job_id(0)]

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

    # ---------------------------------------------------------------------------------------------------------- quotas

    async def test_used_counts_the_jobs_of_a_tenant_by_time_and_by_state(
        self, store: ResultStore, feed: Feeder
    ) -> None:
        first, second, third = request(1), request(2), request(3)
        times = [one.accepted_at for one in (first, second, third)]
        assert times == sorted(set(times))
        await feed(first, second, third, event(1, EventKind.SUCCEEDED), event(9, EventKind.STARTED))
        await feed(replace(request(4), tenant="other"))

        async def used(minute_from: float, day_from: float, *most: int) -> Use:
            names = ("jobs_per_minute", "jobs_per_day", "jobs_outstanding")
            bounds = Use(**dict(zip(names, most or (10, 10, 10), strict=True)))
            return await store.used(TENANT, minute_from=minute_from, day_from=day_from, most=bounds)

        assert await used(times[1], times[0]) == Use(jobs_per_minute=1, jobs_per_day=2, jobs_outstanding=2)
        assert await used(times[2], times[0] - 1) == Use(jobs_per_minute=0, jobs_per_day=3, jobs_outstanding=2)
        assert await used(0.0, 0.0, 1, 2, 1) == Use(jobs_per_minute=1, jobs_per_day=2, jobs_outstanding=1)
        nobody = await store.used("nobody", minute_from=0.0, day_from=0.0, most=Use(jobs_outstanding=1))
        assert nobody == Use()

    # --------------------------------------------------------------------------------------------------- reservations

    async def test_the_first_holds_the_key_and_others_see_what_stands(self, store: ResultStore) -> None:
        first = await store.reserve(reservation(1), holder="a", lease_s=LONG_S)
        assert first == Claim(reservation(1), held=True)
        second = await store.reserve(reservation(2), holder="b", lease_s=LONG_S)
        assert second == Claim(reservation(1), held=False)
        assert await store.reserved(TENANT, "key") == reservation(1)

    async def test_of_many_at_once_one_holds_it(self, store: ResultStore) -> None:
        claims = await asyncio.gather(
            *(store.reserve(reservation(n), holder=f"h-{n}", lease_s=LONG_S) for n in range(20))
        )
        assert [claim.held for claim in claims].count(True) == 1
        assert len({claim.reservation for claim in claims}) == 1

    async def test_which_of_many_are_published_is_told_at_once(self, store: ResultStore) -> None:
        await store.reserve(replace(reservation(1), key="begun"), holder="a", lease_s=LONG_S)
        await store.reserve(replace(reservation(2), key="done"), holder="a", lease_s=LONG_S)
        await store.published(replace(reservation(2), key="done"))
        asked = ["begun", "done", "unknown", *(f"key {number}" for number in range(200))]
        assert await store.published_of(TENANT, asked) == {"done"}
        assert await store.published_of("other", ["done"]) == frozenset()
        assert await store.published_of(TENANT, []) == frozenset()

    async def test_a_published_one_is_held_by_nobody(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=0.0)
        for _ in range(2):
            await store.published(reservation(1))
        done = replace(reservation(1), published=True)
        assert await store.reserve(reservation(2), holder="b", lease_s=LONG_S) == Claim(done, held=False)
        assert await store.reserved(TENANT, "key") == done

    async def test_whoever_comes_after_the_lease_takes_over_the_same_job(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=0.0)
        taken_over = Claim(reservation(1), held=True, resumed=True)
        assert await store.reserve(reservation(2), holder="b", lease_s=LONG_S) == taken_over
        assert await store.reserve(reservation(3), holder="a", lease_s=LONG_S) == Claim(reservation(1), held=False)

    async def test_its_holder_may_ask_again(self, store: ResultStore) -> None:
        for resumed in (False, True):
            claim = await store.reserve(reservation(1), holder="a", lease_s=LONG_S)
            assert claim == Claim(reservation(1), held=True, resumed=resumed)

    async def test_a_released_one_is_free_at_once(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=LONG_S)
        await store.release(reservation(1), holder="b")  # not its to give
        assert not (await store.reserve(reservation(1), holder="c", lease_s=LONG_S)).held
        await store.release(reservation(1), holder="a")
        taken_over = Claim(reservation(1), held=True, resumed=True)
        assert await store.reserve(reservation(2), holder="b", lease_s=LONG_S) == taken_over

    async def test_of_a_withdrawn_one_nothing_is_left(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=LONG_S)
        await store.withdraw(reservation(1), holder="b")  # not its to give
        assert await store.reserved(TENANT, "key") == reservation(1)
        await store.withdraw(reservation(1), holder="a")
        assert await store.reserved(TENANT, "key") is None
        other = replace(reservation(2), fingerprint="other")
        assert await store.reserve(other, holder="b", lease_s=LONG_S) == Claim(other, held=True)

    async def test_a_published_one_is_not_withdrawn(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=LONG_S)
        await store.published(reservation(1))
        await store.withdraw(reservation(1), holder="a")
        assert await store.reserved(TENANT, "key") == replace(reservation(1), published=True)

    async def test_another_request_never_takes_over(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=0.0)
        other = replace(reservation(2), fingerprint="other")
        assert await store.reserve(other, holder="b", lease_s=LONG_S) == Claim(reservation(1), held=False)

    async def test_a_key_is_as_good_as_new_after_a_day(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=0.0)
        await store.published(reservation(1))
        old = reservation(1).accepted_at
        almost = replace(reservation(2), fingerprint="other", accepted_at=old + KEEP_S)
        assert not (await store.reserve(almost, holder="b", lease_s=LONG_S)).held
        later = replace(almost, accepted_at=old + KEEP_S + 0.001)
        assert await store.reserve(later, holder="b", lease_s=LONG_S) == Claim(later, held=True)

    async def test_one_that_names_this_very_job_does_not_grow_old(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=0.0)
        await store.published(reservation(1))
        later = replace(reservation(1), fingerprint="other", accepted_at=reservation(1).accepted_at + 2 * KEEP_S)
        claim = await store.reserve(later, holder="b", lease_s=LONG_S)
        assert claim == Claim(replace(reservation(1), published=True), held=False)

    async def test_the_key_of_another_tenant_is_another_key(self, store: ResultStore) -> None:
        await store.reserve(reservation(1), holder="a", lease_s=LONG_S)
        theirs = replace(reservation(2), tenant="other")
        assert await store.reserve(theirs, holder="b", lease_s=LONG_S) == Claim(theirs, held=True)

    @pytest.mark.parametrize("name", ["\0", "naïve ✓", "'; DROP TABLE reservations; --", "\\0041"])
    async def test_a_reservation_may_have_any_name(self, store: ResultStore, name: str) -> None:
        one = replace(reservation(1), tenant=name, job_id=name, fingerprint=name, key=name)
        assert await store.reserve(one, holder="a", lease_s=LONG_S) == Claim(one, held=True)
        assert await store.reserved(name, name) == one

    async def test_a_job_in_the_log_publishes_its_reservation(self, store: ResultStore, feed: Feeder) -> None:
        """Whoever published it died before saying so."""
        await store.reserve(reservation(1), holder="a", lease_s=LONG_S)
        await feed(keyed(1), request(2))
        done = replace(reservation(1), published=True)
        assert await store.reserve(reservation(3), holder="b", lease_s=LONG_S) == Claim(done, held=False)
        await feed(keyed(4, key="unknown here"))
        assert await store.reserved(TENANT, "unknown here") == replace(
            reservation(4), key="unknown here", published=True
        )

    async def test_of_one_key_in_the_log_the_youngest_job_counts(self, store: ResultStore, feed: Feeder) -> None:
        await feed(keyed(5), keyed(3))
        await feed(keyed(4))
        assert await store.reserved(TENANT, "key") == replace(reservation(5), published=True)

    async def test_a_rebuild_makes_the_published_ones_anew_and_keeps_the_others(
        self, store: ResultStore, feed: Feeder
    ) -> None:
        await feed(keyed(1))
        waiting = replace(reservation(2), key="not published")
        await store.reserve(waiting, holder="a", lease_s=LONG_S)
        await store.begin_rebuild(ending({"log": "1"}))
        for call in (
            store.reserve(reservation(3), holder="b", lease_s=1.0),
            store.reserved(TENANT, "key"),
        ):
            with pytest.raises(Unavailable) as refused:
                await call
            assert refused.value.code == "rebuilding"
        await store.end_rebuild()
        assert await store.reserved(TENANT, "key") is None
        assert await store.reserved(TENANT, "not published") == waiting

    # -------------------------------------------------------------------------------------------------------- queues

    async def test_what_waits_and_runs_is_counted_by_model_and_lane(self, store: ResultStore, feed: Feeder) -> None:
        low = replace(request(3, model="other"), lane="low")
        await feed(request(1), request(2), low, request(4), request(5))
        await feed(event(1, EventKind.STARTED), succeeded(1, OUTPUT))
        await feed(event(4, EventKind.STARTED))
        sample = LaneCount(model="sample", lane="normal", waiting=2, running=1, oldest_at=request(2).accepted_at)
        other = LaneCount(model="other", lane="low", waiting=1, running=0, oldest_at=low.accepted_at)
        assert await store.queues() == [other, sample]

    async def test_nothing_is_counted_twice_and_what_is_over_not_at_all(self, store: ResultStore, feed: Feeder) -> None:
        await feed(request(1), request(2), event(1, EventKind.STARTED), event(1, EventKind.STARTED))
        await feed(request(1), request(2), event(1, EventKind.QUEUED, at_s=1.5))
        [counted] = await store.queues()
        assert (counted.waiting, counted.running, counted.oldest_at) == (2, 0, request(1).accepted_at)
        await feed(event(1, EventKind.CANCELED), event(2, EventKind.EXPIRED, attempt=0), failed(1))
        assert await store.queues() == []

    async def test_a_stub_is_counted_once_its_request_has_come(self, store: ResultStore, feed: Feeder) -> None:
        await feed(event(1, EventKind.STARTED), succeeded(2, OUTPUT), event(3, EventKind.STARTED))
        await feed(event(3, EventKind.QUEUED, at_s=1.5))
        assert await store.queues() == []
        await feed(request(1), request(2), request(3))
        [counted] = await store.queues()
        assert (counted.waiting, counted.running, counted.oldest_at) == (1, 1, request(3).accepted_at)

    async def test_counts_of_several_sources_make_one(self, store: ResultStore) -> None:
        requests, events = Feeder(store, "requests"), Feeder(store, "events")
        await requests(*(request(n) for n in range(9)))
        await events(*(event(n, EventKind.STARTED) for n in range(5)))
        await events(*(succeeded(n, OUTPUT) for n in range(3)))
        [counted] = await store.queues()
        assert (counted.waiting, counted.running) == (4, 2)

    async def test_ahead_of_a_job_is_what_waits_in_its_lane_for_longer(self, store: ResultStore, feed: Feeder) -> None:
        await feed(*(request(n) for n in range(9)))
        await feed(replace(request(10), lane="high"), request(11, model="other"), request(12, tenant="another"))
        await feed(request(13), event(2, EventKind.STARTED), succeeded(3, OUTPUT))

        async def ahead(number: int, look: int = 100) -> int:
            job = await store.get(TENANT, job_id(number))
            assert job is not None
            return await store.ahead(job, look)

        assert [await ahead(number) for number in (0, 1, 4, 8, 10, 11, 13)] == [0, 1, 2, 6, 0, 0, 8]
        assert await ahead(8, look=5) == 5

    async def test_during_a_rebuild_nobody_counts(self, store: ResultStore, feed: Feeder) -> None:
        await feed(request(1))
        await store.begin_rebuild(ending({"log": "1"}))
        for call in (store.queues(), store.ahead(folded(request(1)), 9)):
            with pytest.raises(Unavailable) as refused:
                await call
            assert refused.value.code == "rebuilding"
        await store.end_rebuild()
        assert await store.queues() == []
