"""`forebay webhooks deliveries` and `redeliver`."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from tests.unit.cli.conftest import JOB, JOB_ID, FakeService, Ran

Forebay = Callable[..., Ran]

SOME = "GET /v1/deliveries"
MANY = "POST /v1/deliveries/redeliver"
TRY = {"number": 1, "at": "2026-11-23T18:00:00.000000Z", "status": 204, "latency_s": 0.01}
DELIVERED = {
    "id": "msg_1",
    "job_id": JOB_ID,
    "type": "job.succeeded",
    "endpoint": "ep_1",
    "status": "delivered",
    "created_at": "2026-11-23T18:00:00.000000Z",
    "tries_total": 1,
    "tries": [TRY],
}
PENDING = {
    **DELIVERED,
    "id": "msg_2",
    "status": "pending",
    "next_try_at": "2026-11-23T18:05:00.250000Z",
    "tries": [{**TRY, "status": 500, "code": "status", "message": "500 Internal Server Error"}],
}
PARKED = {
    "id": "msg_3",
    "batch_id": "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f",
    "type": "batch.completed",
    "url": "https://one.example",
    "status": "parked",
    "reason": "gone",
    "created_at": "2026-11-23T18:00:00.000000Z",
    "tries_total": 1,
    "tries": [{**TRY, "status": 410, "code": "gone", "message": "410 Gone"}],
}
REMOVED = {**DELIVERED, "id": "msg_4", "status": "parked", "reason": "endpoint_removed", "tries_total": 0, "tries": []}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For which the commands would have slept."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def test_those_of_all_jobs_are_listed_with_filters(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(SOME, {"deliveries": [DELIVERED, PENDING, PARKED, REMOVED]})
    since = "2026-11-23T00:00:00Z"
    ran = forebay(
        "webhooks", "deliveries", "--status", "parked", "--endpoint", "ep_1", "--since", since, "--limit", "9"
    )
    assert dict(fake.requests[0].url.params) == {"status": "parked", "endpoint": "ep_1", "since": since, "limit": "9"}
    header, *lines = ran.out.splitlines()
    assert header.split() == ["type", "job", "receiver", "status", "tries", "next", "try,", "or", "why", "none"]
    assert [line.split() for line in lines] == [
        ["job.succeeded", JOB_ID, "ep_1", "delivered", "1"],
        ["job.succeeded", JOB_ID, "ep_1", "pending", "1", "2026-11-23T18:05:00Z"],
        ["batch.completed", PARKED["batch_id"], "https://one.example", "parked", "1", "gone:", "410", "Gone"],
        ["job.succeeded", JOB_ID, "ep_1", "parked", "0", "endpoint_removed"],
    ]
    assert forebay("webhooks", "deliveries", "--json").json == [DELIVERED, PENDING, PARKED, REMOVED]


def test_those_of_one_job_are_listed_with_their_ids(fake: FakeService, forebay: Forebay) -> None:
    fake.answers("GET /v1/jobs", {"jobs": [JOB]})
    fake.answers(f"GET /v1/jobs/{JOB_ID}/deliveries", {"deliveries": [DELIVERED]})
    ran = forebay("webhooks", "deliveries", JOB_ID[:13])
    assert ran.out.splitlines()[1].split() == ["msg_1", "job.succeeded", "ep_1", "delivered", "1"]


def test_none_are_told(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(SOME, {"deliveries": []})
    assert forebay("webhooks", "deliveries") == Ran(0, "", "no deliveries\n")
    assert forebay("webhooks", "deliveries", "--status", "parked") == Ran(0, "", "no such deliveries\n")


def test_a_filter_for_those_of_one_job_is_refused(fake: FakeService, forebay: Forebay) -> None:
    assert forebay("webhooks", "deliveries", JOB_ID, "--status", "parked").code == 1
    assert fake.requests == []


def test_one_is_sent_again(fake: FakeService, forebay: Forebay) -> None:
    asked = {**PENDING, "next_try_at": "2026-11-23T18:01:00.000000Z"}
    fake.answers(f"POST /v1/jobs/{JOB_ID}/deliveries/msg_2/redeliver", asked, status=202)
    assert forebay("webhooks", "redeliver", JOB_ID, "msg_2") == Ran(0, "msg_2 is sent again\n", "")
    assert forebay("webhooks", "redeliver", JOB_ID, "msg_2", "--json").json == asked


def test_many_are_sent_again_from_page_to_page(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(MANY, {"asked": 200, "next_cursor": "one"}, {"asked": 0, "next_cursor": "two"}, {"asked": 3})
    ran = forebay("webhooks", "redeliver", "--since", "2026-11-23T00:00:00Z", "--endpoint", "ep_1")
    assert ran == Ran(0, "203 are sent again\n", "")
    every = {"since": "2026-11-23T00:00:00Z", "endpoint": "ep_1"}
    asked = [dict(request.url.params) for request in fake.requests]
    assert asked == [every, {**every, "cursor": "one"}, {**every, "cursor": "two"}]


def test_a_service_that_is_busy_is_asked_again_when_it_says(
    fake: FakeService, forebay: Forebay, pauses: list[float]
) -> None:
    busy = {"status": 503, "code": "unavailable", "detail": "the log is away", "retry_after_s": 2}
    fake.answers(MANY, {"asked": 1, "next_cursor": "one"}, httpx2.Response(503, json=busy), {"asked": 1})
    ran = forebay("webhooks", "redeliver", "--since", "2026-11-23T00:00:00Z", "--status", "delivered", "--json")
    assert (ran.json, pauses) == ({"asked": 2}, [2.0])


def test_how_far_it_came_is_told_where_it_ends_early(fake: FakeService, forebay: Forebay) -> None:
    problem = {"status": 422, "code": "invalid_request", "detail": "no such cursor"}
    fake.answers(MANY, {"asked": 7, "next_cursor": "one"}, httpx2.Response(422, json=problem))
    ran = forebay("webhooks", "redeliver", "--since", "2026-11-23T00:00:00Z")
    assert (ran.code, "7 are sent again, the oldest" in ran.err) == (1, True)


def test_what_is_interrupted_says_how_far_it_came(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(MANY, {"asked": 7, "next_cursor": "one"}, KeyboardInterrupt())
    ran = forebay("webhooks", "redeliver", "--since", "2026-11-23T00:00:00Z")
    assert (ran.code, "7 are sent again, the oldest" in ran.err) == (130, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [JOB_ID],
        [JOB_ID, "--since", "2026-11-23T00:00:00Z"],
        [JOB_ID, "msg_1", "--status", "parked"],
        ["--status", "parked"],
        ["--endpoint", "ep_1"],
    ],
    ids=["nothing", "job", "job-since", "delivery-status", "status", "endpoint"],
)
def test_which_are_meant_must_be_said(fake: FakeService, forebay: Forebay, arguments: list[str]) -> None:
    ran = forebay("webhooks", "redeliver", *arguments)
    assert (ran.code, "say which" in ran.err, fake.requests) == (1, True, [])
