"""What jobs and batches tell: in whatever order and parts their facts are read, the same bytes under the same ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from forebay.core.delivery import DeliveryEvent, DeliveryEventKind, DeliveryStatus, WebhookDelivery, delivery_id
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.fact import JobFact
from forebay.core.job import Job, apply
from forebay.core.job_batch import JobBatch
from forebay.core.outbox import RESULT_MOST_BYTES, DeliveryKey, HeldOutput, OutboxRows
from forebay.core.payload import JSON, Payload
from forebay.core.webhook import WebhookEvent, WebhookTarget
from forebay.testing.samples import TENANT, emitted, event, failed, job_id, request, succeeded

ONE = WebhookTarget(url="https://one.example/hook")
ALL = WebhookTarget(endpoint="ep_all", events=tuple(WebhookEvent))
ASKED_AT = 77.0
OUTPUT = Payload(media_type=JSON, data=b'{"label":"cat"}')
TOLD = replace(request(1, metadata={"order": 7}), webhooks=(ONE, ALL))


class Outbox:
    """One job as a store keeps it: its output apart from it, its row written once for each part of the log."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.output: Payload | None = None
        self.held: list[HeldOutput] = []
        self.rows: dict[DeliveryKey, WebhookDelivery] = {}

    def read(self, facts: Sequence[JobRequest | JobEvent | DeliveryEvent]) -> None:
        told, before, after = OutboxRows(), self.job, self.job
        for fact in facts:
            if isinstance(fact, JobFact):
                was, after = after, apply(after, fact)
                told.note(was, after, fact)
            else:
                told.hear(fact)
        changed = [] if after is None or after is before else [(before, after)]
        key = (TENANT, job_id(1))
        outputs = {key: self.output} if self.output is not None and told.to_read(changed) == [key] else {}
        if told.late:
            told.release(self.held)
            self.held = []
        told.end_jobs(outputs)
        self.held += told.held
        gone = [key] if before is not None and before.deleted_at is not None else []
        there = {place: replace(row, body=b"") for place, row in self.rows.items()}
        known = {place: row for place, row in there.items() if place in told.named or place[:2] in told.deleted}
        for place, row in told.changes(known, gone).items():
            if row is None:
                del self.rows[place]
            else:
                made_before = place in known and known[place].type == row.type
                self.rows[place] = replace(row, body=self.rows[place].body) if made_before else row
        if after is not None:
            self.output = after.output or self.output
            self.job = replace(after, output=None)

    def told(self) -> list[tuple[Any, ...]]:
        """All that the log decides: when one is first due depends on what is read last."""
        return sorted(map(decided, self.rows.values()))


def decided(row: WebhookDelivery) -> tuple[Any, ...]:
    due = row.next_at if row.tried else None, row.since if row.since == ASKED_AT else None
    return row.id, row.type, row.body, row.created_at, row.status, row.tried, row.tries, row.in_turn, row.reason, *due


def of_delivery(about: str, target: WebhookTarget, kind: DeliveryEventKind, **what: Any) -> DeliveryEvent:
    named = delivery_id(TENANT, job_id(1), about, target)
    return DeliveryEvent(tenant=TENANT, job_id=job_id(1), delivery_id=named, kind=kind, **{"at": 9.0, **what})


def tried(about: str, target: WebhookTarget, number: int, outcome: DeliveryStatus) -> DeliveryEvent:
    next_at = 99.0 + number if outcome is DeliveryStatus.PENDING else None
    return of_delivery(about, target, DeliveryEventKind.TRIED, number=number, outcome=outcome, next_at=next_at)


about = st.sampled_from([("completed", ONE), ("completed", ALL), ("started", ALL), ("output.1.0", ALL)])
delivery_events = st.one_of(
    st.builds(
        lambda what, number, outcome: tried(what[0], what[1], number, outcome),
        about,
        st.integers(1, 3),
        st.sampled_from(DeliveryStatus),
    ),
    about.map(lambda what: of_delivery(what[0], what[1], DeliveryEventKind.ASKED, at=ASKED_AT)),
)
job_events = st.sampled_from(
    [
        event(1, EventKind.STARTED),
        emitted(1, "a", 2),
        emitted(1, "b", first=2),
        event(1, EventKind.QUEUED),
        event(1, EventKind.STARTED, attempt=2),
        emitted(1, "c", attempt=2),
        succeeded(1, OUTPUT),
        failed(1),
        event(1, EventKind.CANCELED, attempt=0),
    ]
)
ENDED = [event(1, EventKind.DELETED, attempt=0)]


@given(
    st.data(),
    st.lists(job_events, max_size=6).map(lambda found: [event(1, EventKind.STARTED), *found]),
    st.lists(job_events | delivery_events, max_size=6),
    st.sampled_from([[], ENDED]),
    st.lists(delivery_events, max_size=3),
)
def test_the_order_and_the_parts_in_which_facts_are_read_change_nothing(
    data: st.DataObject,
    first: list[JobEvent],
    then: list[JobEvent | DeliveryEvent],
    deleted: list[JobEvent],
    behind: list[DeliveryEvent],
) -> None:
    """The request comes before its job is deleted. What is said of one job keeps its order."""
    live = [*first, *then]
    tellings = []
    for _ in range(2):
        facts: list[Any] = [*live, *deleted, *behind]
        facts.insert(data.draw(st.integers(0, len(live)), "where the request stands"), TOLD)
        cuts = sorted(data.draw(st.sets(st.integers(1, len(facts) - 1)), "where it is cut"))
        outbox = Outbox()
        for start, end in zip([0, *cuts], [*cuts, len(facts)], strict=True):
            outbox.read(facts[start:end])
        tellings.append(outbox.told())
    assert tellings[0] == tellings[1]


def bodies(*facts: JobRequest | JobEvent) -> dict[str, Any]:
    """By type, of what is told."""
    outbox = Outbox()
    outbox.read(facts)
    return {row.type: json.loads(row.body) for row in outbox.rows.values()}


def test_a_started_job_is_told_as_it_was_then() -> None:
    said = bodies(TOLD, event(1, EventKind.STARTED), succeeded(1, OUTPUT))["job.started"]
    assert said["timestamp"] == said["data"]["started_at"]
    assert (said["data"]["id"], said["data"]["status"], said["data"]["metadata"]) == (
        job_id(1),
        "running",
        {"order": 7},
    )
    assert not said["data"].keys() & {"finished_at", "output", "attempts", "metrics"}


def test_chunks_are_told_with_their_numbers() -> None:
    said = bodies(TOLD, event(1, EventKind.STARTED), emitted(1, "a", {"b": 1}))["job.output"]["data"]
    assert (said["attempt"], said["first"], said["chunks"]) == (1, 0, ["a", {"b": 1}])
    assert said["urls"]["events"] == f"/v1/jobs/{job_id(1)}/events"


@pytest.mark.parametrize(
    ("output", "there"),
    [
        (Payload(media_type=JSON, data=b'"' + b"x" * (RESULT_MOST_BYTES - 2) + b'"'), True),
        (Payload(media_type=JSON, data=b'"' + b"x" * (RESULT_MOST_BYTES - 1) + b'"'), False),
        (Payload(media_type="image/png", data=b"\x89PNG"), False),
    ],
)
def test_a_small_result_in_json_is_told_with_it(output: Payload, there: bool) -> None:
    said = bodies(TOLD, succeeded(1, output))["job.succeeded"]["data"]
    assert ("output" in said) == there
    assert said["urls"]["result"] == f"/v1/jobs/{job_id(1)}/result"


def test_why_a_job_failed_is_told() -> None:
    assert bodies(TOLD, failed(1))["job.failed"]["data"]["error"]["code"] == "model_failed"


def test_a_job_that_tells_nobody_changes_no_row() -> None:
    told, job = OutboxRows(), apply(None, request(1))
    told.note(None, job, request(1))
    after = apply(job, succeeded(1, OUTPUT))
    told.note(job, after, succeeded(1, OUTPUT))
    told.end_jobs({})
    assert (told.named, told.held, told.late, told.changes({}, [])) == ([], [], {}, {})


def test_outputs_that_came_before_a_request_are_held_and_go_with_the_job() -> None:
    outbox = Outbox()
    started, chunks = event(1, EventKind.STARTED), emitted(1, "a")
    outbox.read([started, chunks])
    assert [one.chunks for one in outbox.held] == [b'["a"]']
    at_once = Outbox()
    at_once.read([started, chunks, *ENDED])
    assert at_once.held == []


def test_a_batch_is_told_of_once() -> None:
    unfinished = JobBatch(
        tenant=TENANT, id="b", created_at=1.0, sealed_at=2.0, last_at=2.0, accepted=2, succeeded=1, webhooks=(ONE, ALL)
    )
    finished = replace(unfinished, failed=1, last_at=3.0)
    for before, after, count in ((unfinished, unfinished, 0), (unfinished, finished, 2), (finished, finished, 0)):
        told = OutboxRows()
        told.end_batch(before, after)
        assert len(told.named) == count
