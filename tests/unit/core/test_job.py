"""How a job moves, against a second telling of the same rules."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from forebay.core.attempts import MESSAGE_CHARS, MOST
from forebay.core.event import EventKind, JobError, JobEvent, JobMetrics, JobRequest
from forebay.core.job import FINAL, Interim, Job, JobStatus, apply
from forebay.core.payload import JSON, Payload

Fact = JobRequest | JobEvent
FINAL_KINDS = (EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELED, EventKind.EXPIRED)

kinds = st.sampled_from([kind for kind in EventKind if not kind.interim and kind is not EventKind.DELETED])
attempts = st.integers(0, 4)
versions = st.sampled_from(["", "1", "2"])


def request(number: int = 0, version: str = "", logged_at: float = 0.0) -> JobRequest:
    return JobRequest(
        tenant="t",
        job_id="j",
        model=f"model-{number}",
        version=version,
        lane="low",
        accepted_at=100.0 + number,
        input=Payload(media_type=JSON, data=b"1"),
        metadata={"n": number},
        durability=f"class {number}",
        start_within_s=50.0 if number else None,
        retain_s=1000.0 + number,
        max_life_s=500.0 if number else None,
        logged_at=logged_at,
    )


def event(kind: EventKind, attempt: int = 1, at: float = 200.0, version: str = "") -> JobEvent:
    succeeded, failed = kind is EventKind.SUCCEEDED, kind in (EventKind.FAILED, EventKind.QUEUED)
    return JobEvent(
        tenant="t",
        job_id="j",
        kind=kind,
        at=at,
        attempt=attempt,
        model_version=version,
        output=Payload(media_type=JSON, data=f"{at}".encode()) if succeeded else None,
        metrics=JobMetrics(queue_s=at) if succeeded else None,
        error=JobError(code="e", message=f"{at}") if failed else None,
        due_at=at + 5.0 if kind is EventKind.QUEUED else None,
    )


def progress(sequence: int, attempt: int = 1, worker: str = "a") -> JobEvent:
    word = replace(event(EventKind.PROGRESS, attempt), worker=worker)
    return replace(word, sequence=sequence, progress=sequence / 8)


def output(first: int, count: int, attempt: int = 1, worker: str = "a") -> JobEvent:
    chunks = Payload(media_type=JSON, data=b"[" + b",".join([b"1"] * count) + b"]")
    return replace(event(EventKind.OUTPUT, attempt), worker=worker, sequence=first, chunks=count, output=chunks)


def fold(facts: list[Fact]) -> Job:
    job: Job | None = None
    for fact in facts:
        job = apply(job, fact)
    assert job is not None
    return job


@dataclass
class Telling:
    """The rules told a second time: requests and events apart, so that their order cannot matter."""

    requests: list[JobRequest] = field(default_factory=list)
    heard: list[JobEvent] = field(default_factory=list)
    """The events that count."""
    deleted: JobEvent | None = None

    said: list[JobEvent] = field(default_factory=list)
    """What counts of what the newest attempt says of itself."""

    def tell(self, fact: Fact) -> None:
        if isinstance(fact, JobRequest):
            self.requests.append(fact)
        elif self.deleted or (fact.not_before is not None and fact.at < fact.not_before):
            pass
        elif fact.kind is EventKind.DELETED:
            self.deleted = fact
        elif fact.kind.interim:
            if self.running and fact.attempt == self.heard[-1].attempt and self.is_next(fact):
                self.said.append(fact)
        elif self.counts(fact):
            self.heard.append(fact)
            self.said.clear()

    @property
    def running(self) -> bool:
        return bool(self.heard) and self.heard[-1].kind is EventKind.STARTED

    def is_next(self, fact: JobEvent) -> bool:
        if self.said and fact.worker != self.said[0].worker:
            return False
        if fact.kind is EventKind.OUTPUT:
            return fact.chunks > 0 and fact.sequence == self.interim.chunks
        return fact.sequence > self.interim.sequence

    @property
    def interim(self) -> Interim:
        words = [one for one in self.said if one.kind is EventKind.PROGRESS]
        return Interim(
            worker=self.said[0].worker if self.said else "",
            progress=words[-1].progress if words else None,
            sequence=words[-1].sequence if words else 0,
            chunks=sum(one.chunks for one in self.said),
        )

    def counts(self, fact: JobEvent) -> bool:
        newest = max((one.attempt for one in self.heard), default=0)
        if self.final is not None:
            return False
        if fact.kind is EventKind.STARTED:
            return fact.attempt > newest
        if fact.kind is EventKind.QUEUED:
            return self.running and fact.attempt >= newest
        if fact.kind is EventKind.EXPIRED:
            return not self.heard
        return True

    @property
    def final(self) -> JobEvent | None:
        return next((one for one in self.heard if one.kind in FINAL_KINDS), None)

    def job(self) -> Job:
        if self.deleted:
            return Job(tenant="t", id="j", deleted_at=self.deleted.at)
        last = self.heard[-1] if self.heard else None
        starts = [one for one in self.heard if one.kind is EventKind.STARTED]
        named = [one.model_version for one in self.heard if one.model_version and one.kind is not EventKind.QUEUED]
        decided, failures = self.final, [one for one in self.heard if one.kind is EventKind.QUEUED]
        first = self.requests[0] if self.requests else None
        soonest = min(self.requests, key=dies_at, default=None)
        counted = [one.attempt for one in self.heard if one.attempt]
        deciding = decided or (failures[-1] if failures else None)
        return Job(
            tenant="t",
            id="j",
            status=_STATUS[last.kind] if last else JobStatus.QUEUED,
            model=first.model if first else "",
            version=named[-1] if named else first.version if first else "",
            lane=first.lane if first else "normal",
            attempts=counted[-1] if counted else 0,
            created_at=first.accepted_at if first else 0.0,
            started_at=starts[0].at if starts else None,
            finished_at=decided.at if decided else None,
            metrics=decided.metrics if decided else None,
            output=decided.output if decided else None,
            error=deciding.error if deciding else None,
            metadata=first.metadata if first else {},
            durability=first.durability if first else "",
            interim=self.interim if self.said else None,
            due_at=last.due_at if last else None,
            expires_at=soonest.accepted_at + 50.0 if soonest and soonest.start_within_s else None,
            dies_at=dies_at(soonest) if soonest else None,
            retain_s=(first.retain_s if first else None) or 86_400.0,
            ended_at=decided.at if decided else None,
        )


def dies_at(request: JobRequest) -> float:
    return request.accepted_at + (request.max_life_s or 86_400.0)


_STATUS = {
    EventKind.QUEUED: JobStatus.QUEUED,
    EventKind.STARTED: JobStatus.RUNNING,
    EventKind.SUCCEEDED: JobStatus.SUCCEEDED,
    EventKind.FAILED: JobStatus.FAILED,
    EventKind.CANCELED: JobStatus.CANCELED,
    EventKind.EXPIRED: JobStatus.EXPIRED,
}


class ApplyMachine(RuleBasedStateMachine):
    """Any facts in any order, also ones that no worker would publish."""

    @initialize()
    def nothing_is_known(self) -> None:
        self.job: Job | None = None
        self.telling = Telling()
        self.clock = 200.0
        self.last: Fact | None = None

    def learn(self, fact: Fact) -> None:
        before, self.last = self.job, fact
        self.job = apply(before, fact)
        self.telling.tell(fact)
        if before is not None and before.status in FINAL and self.job.deleted_at is None:
            assert self.job.status is before.status
            assert (self.job.output, self.job.finished_at) == (before.output, before.finished_at)
        if before == self.job:
            assert before is self.job, "a fact that changes nothing must return the job itself"

    @rule(number=st.integers(0, 2), version=versions)
    def a_request_comes(self, number: int, version: str) -> None:
        self.learn(request(number, version))

    @rule(kind=kinds, attempt=attempts, version=versions)
    def an_event_comes(self, kind: EventKind, attempt: int, version: str) -> None:
        self.clock += 1
        self.learn(event(kind, attempt, self.clock, version))

    @rule(sequence=st.integers(0, 4), attempt=attempts, worker=st.sampled_from("ab"))
    def an_attempt_says_how_far_it_is(self, sequence: int, attempt: int, worker: str) -> None:
        self.learn(progress(sequence, attempt, worker))

    @rule(first=st.integers(0, 4), count=st.integers(0, 2), attempt=attempts, worker=st.sampled_from("ab"))
    def an_attempt_emits(self, first: int, count: int, attempt: int, worker: str) -> None:
        self.learn(output(first, count, attempt, worker))

    @rule(kind=st.sampled_from([EventKind.EXPIRED, EventKind.FAILED, EventKind.DELETED]), early_s=st.integers(-2, 2))
    def time_brings_it_further(self, kind: EventKind, early_s: int) -> None:
        self.clock += 1
        self.learn(replace(event(kind, 0, self.clock), not_before=self.clock + early_s))

    @rule()
    def it_is_deleted(self) -> None:
        self.clock += 1
        self.learn(event(EventKind.DELETED, 0, self.clock))

    @rule()
    def the_last_fact_comes_again(self) -> None:
        if self.last is not None and self.job is not None:
            assert apply(self.job, self.last) is self.job

    @invariant()
    def both_tellings_agree(self) -> None:
        if self.job is not None:
            assert replace(self.job, history=()) == self.telling.job()


TestApply = ApplyMachine.TestCase


@st.composite
def lives(draw: st.DrawFn) -> list[JobEvent]:
    """Events of one job as workers, the canceller and the expirer publish them, up to a final one or not."""
    events: list[JobEvent] = []
    if draw(st.booleans()) and draw(st.booleans()):
        return [event(draw(st.sampled_from([EventKind.CANCELED, EventKind.EXPIRED])), 0)]
    for attempt in range(1, draw(st.integers(0, 4)) + 1):
        events.append(event(EventKind.STARTED, attempt, 200.0 + 10 * attempt, draw(versions)))
        events += [progress(n, attempt) for n in range(1, draw(st.integers(1, 3)))]
        events += [output(2 * n, 2, attempt) for n in range(draw(st.integers(0, 2)))]
        end = draw(st.sampled_from([EventKind.QUEUED, EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELED, None]))
        if end is None:
            continue  # a worker died
        events.append(event(end, attempt, 205.0 + 10 * attempt))
        if end is not EventKind.QUEUED:
            break
    if events and events[-1].kind in FINAL_KINDS and draw(st.booleans()):
        events.append(event(EventKind.DELETED, 0, 300.0))
    return events


@given(lives(), st.data())
def test_the_request_may_come_before_among_or_after_the_events(events: list[JobEvent], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(events)))
    moved: list[Fact] = [*events[:place], request(version="7"), *events[place:]]
    assert fold(moved) == fold([request(version="7"), *events])


@given(lives(), st.data())
def test_facts_that_are_repeated_later_change_nothing(events: list[JobEvent], data: st.DataObject) -> None:
    once: list[Fact] = [request(), *events]
    repeated: list[Fact] = []
    for n, fact in enumerate(once):
        repeated += [fact, *data.draw(st.lists(st.sampled_from(once[: n + 1]), max_size=3))]
    assert fold(repeated) == fold(once)


@given(lives(), st.sampled_from(FINAL_KINDS), st.lists(st.builds(event, kinds, attempts), max_size=6))
def test_nothing_follows_the_first_final_event(events: list[JobEvent], kind: EventKind, late: list[JobEvent]) -> None:
    decided = fold([request(), *events, event(kind, 3)])
    if decided.status in FINAL or decided.deleted_at is not None:
        job = decided
        for fact in late:
            job = apply(job, fact)
        assert job is decided


def told(job: Job) -> list[tuple[int, str, float | None, float | None, str | None]]:
    return [
        (one.attempt, one.worker, one.started_at, one.finished_at, one.error.code if one.error else None)
        for one in job.history
    ]


def by(worker: str, fact: JobEvent, code: str = "") -> JobEvent:
    return replace(fact, worker=worker, error=JobError(code=code, message="m" * 9999) if code else None)


def test_a_failed_job_tells_who_ran_each_attempt_when_and_how_it_ended() -> None:
    job = fold(
        [
            request(),
            by("a", event(EventKind.STARTED, 1, 10.0)),
            by("a", event(EventKind.QUEUED, 1, 11.0), "not_yet"),
            by("b", event(EventKind.STARTED, 2, 20.0)),  # and b dies
            by("c", event(EventKind.STARTED, 4, 40.0)),  # of the third nobody has said that it began
            by("d", event(EventKind.FAILED, 4, 44.0), "worker_lost"),
        ]
    )
    assert told(job) == [
        (1, "a", 10.0, 11.0, "not_yet"),
        (2, "b", 20.0, None, None),
        (4, "c", 40.0, 44.0, "worker_lost"),
    ]
    assert {len(one.error.message) for one in job.history if one.error} == {MESSAGE_CHARS}
    assert job.error is not None
    assert len(job.error.message) == 9999


def test_an_attempt_of_which_only_the_end_is_known_is_told_too() -> None:
    job = fold([request(), by("a", event(EventKind.FAILED, 3, 30.0), "worker_lost")])
    assert told(job) == [(3, "a", None, 30.0, "worker_lost")]


def test_an_end_without_an_attempt_adds_none() -> None:
    job = fold([request(), by("a", event(EventKind.FAILED, 0, 30.0), "malformed_record")])
    assert told(job) == []


def test_what_ended_an_attempt_is_not_told_anew_by_what_ended_the_job() -> None:
    job = fold(
        [
            request(),
            by("a", event(EventKind.STARTED, 1, 10.0)),
            by("a", event(EventKind.QUEUED, 1, 11.0), "not_yet"),
            by("b", event(EventKind.FAILED, 1, 20.0), "input_lost"),
        ]
    )
    assert told(job) == [(1, "a", 10.0, 11.0, "not_yet")]


@pytest.mark.parametrize("kind", [EventKind.SUCCEEDED, EventKind.CANCELED])
def test_of_a_job_that_ended_otherwise_no_attempts_are_kept(kind: EventKind) -> None:
    assert fold([request(), event(EventKind.STARTED, 1), event(kind, 1)]).history == ()


def test_of_many_attempts_the_newest_are_kept() -> None:
    job = fold([request(), *(event(EventKind.STARTED, number) for number in range(1, 2 * MOST))])
    assert [one.attempt for one in job.history] == list(range(MOST, 2 * MOST))


def test_a_start_beats_an_expiry_that_comes_after_it() -> None:
    job = fold([request(), event(EventKind.STARTED, 1), event(EventKind.QUEUED, 1), event(EventKind.EXPIRED, 0)])
    assert job.status is JobStatus.QUEUED


def test_a_late_word_of_an_older_attempt_is_ignored() -> None:
    job = fold([request(), event(EventKind.STARTED, 2), event(EventKind.QUEUED, 1), event(EventKind.STARTED, 1)])
    assert (job.status, job.attempts) == (JobStatus.RUNNING, 2)


def test_attempts_are_those_of_the_deciding_event() -> None:
    job = fold([request(), event(EventKind.STARTED, 2), event(EventKind.SUCCEEDED, 1)])
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)
    job = fold([request(), event(EventKind.STARTED, 2), event(EventKind.CANCELED, 0)])
    assert (job.status, job.attempts) == (JobStatus.CANCELED, 2)


@pytest.mark.parametrize(
    ("kind", "then"), [(EventKind.EXPIRED, JobStatus.EXPIRED), (EventKind.FAILED, JobStatus.FAILED)]
)
def test_what_is_due_counts_by_the_time_of_the_log_alone(kind: EventKind, then: JobStatus) -> None:
    due = replace(event(kind, 0, at=1e12), not_before=250.0)
    assert fold([request(), replace(due, logged_at=249.999)]).status is JobStatus.QUEUED
    assert fold([request(), replace(due, at=0.0, logged_at=250.0)]).status is then


def test_a_jobs_clocks_run_from_when_the_log_took_it() -> None:
    job = fold([request(1, logged_at=10_000.0)])
    assert (job.created_at, job.expires_at, job.dies_at, job.over_at) == (101.0, 10_050.0, 10_500.0, 10_050.0)
    job = fold([request(1, logged_at=10_000.0), event(EventKind.STARTED, 1)])
    assert job.over_at == 10_500.0
    job = fold([request(1, logged_at=10_000.0), replace(event(EventKind.CANCELED, 0), logged_at=10_020.0)])
    assert job.over_at == 10_020.0 + 1001.0


def test_a_stub_is_never_due() -> None:
    assert fold([event(EventKind.SUCCEEDED)]).over_at is None


def test_a_job_whose_end_is_gone_from_the_log_is_deleted_all_the_same() -> None:
    tombstone = fold([event(EventKind.DELETED, 0, 300.0)])
    assert tombstone == fold([request(), event(EventKind.SUCCEEDED), event(EventKind.DELETED, 0, 300.0)])
    assert fold([event(EventKind.DELETED, 0, 300.0), request(), event(EventKind.STARTED)]) == tombstone
