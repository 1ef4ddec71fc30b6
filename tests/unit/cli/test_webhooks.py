"""`forebay webhooks`."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx2
import pytest
from tests.unit.cli.conftest import FakeService, Ran

Forebay = Callable[..., Ran]

PATH = "/v1/webhook-endpoints"
ONE = {
    "id": "ep_1",
    "url": "https://one.example",
    "events": ["completed"],
    "description": "mine",
    "enabled": True,
    "created_at": "2026-11-23T18:00:00.000000Z",
}
FAILING = {**ONE, "id": "ep_2", "events": ["started", "completed"], "failing_since": "2026-11-23T18:00:00.250000Z"}
DISABLED = {**ONE, "id": "ep_3", "enabled": False, "disabled_reason": "it answered 410"}


def sent(fake: FakeService) -> object:
    """The body of the only request."""
    (request,) = fake.requests
    return json.loads(request.content)


def test_the_secret_of_one_that_is_added_is_alone_on_standard_output(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"POST {PATH}", {**ONE, "secret": "whsec_1"}, status=201)
    ran = forebay("webhooks", "add", "https://one.example", "--event", "output", "--event", "completed")
    assert ran == Ran(0, "whsec_1\n", "ep_1 hears completed; what it gets is signed with\n")
    assert sent(fake) == {"url": "https://one.example", "description": "", "events": ["output", "completed"]}


def test_what_an_endpoint_hears_is_left_to_the_service_if_nobody_says(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"POST {PATH}", {**ONE, "secret": "whsec_1"}, status=201)
    ran = forebay("webhooks", "add", "https://one.example", "--description", "mine", "--json")
    assert ran.json == {**ONE, "secret": "whsec_1"}
    assert sent(fake) == {"url": "https://one.example", "description": "mine"}


def test_an_address_that_is_refused_is_told(fake: FakeService, forebay: Forebay) -> None:
    place = {"pointer": "#/url", "detail": "it is private"}
    problem = {"status": 422, "code": "invalid_request", "detail": "it is private", "errors": [place]}
    fake.answers(f"POST {PATH}", problem, status=422)
    ran = forebay("webhooks", "add", "https://10.0.0.1")
    assert ran.code == 1
    assert "/url: it is private" in ran.err


def test_each_endpoint_has_its_line(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET {PATH}", {"endpoints": [ONE, FAILING, DISABLED]})
    ran = forebay("webhooks", "ls")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["id", "url", "events", "state", "description"],
        ["ep_1", "https://one.example", "completed", "enabled", "mine"],
        ["ep_2", "https://one.example", "started", "completed", "failing", "since", "2026-11-23T18:00:00Z", "mine"],
        ["ep_3", "https://one.example", "completed", "disabled:", "it", "answered", "410", "mine"],
    ]
    assert forebay("webhooks", "ls", "--json").json == [ONE, FAILING, DISABLED]


def test_none_are_told(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET {PATH}", {"endpoints": []})
    assert forebay("webhooks", "ls") == Ran(0, "", "no webhook endpoints\n")


def test_one_is_removed(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"DELETE {PATH}/ep_1", httpx2.Response(204))
    assert forebay("webhooks", "rm", "ep_1") == Ran(0, "ep_1 is removed\n", "")


def test_one_that_is_not_there_is_told(fake: FakeService, forebay: Forebay) -> None:
    problem = {"status": 404, "code": "unknown_endpoint", "detail": "no webhook endpoint has the id 'ep_1'"}
    fake.answers(f"DELETE {PATH}/ep_1", problem, status=404)
    ran = forebay("webhooks", "rm", "ep_1")
    assert (ran.code, "no webhook endpoint has the id 'ep_1'" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("command", "answer", "told"),
    [("enable", ONE, "enabled"), ("disable", DISABLED, "disabled: it answered 410")],
)
def test_one_is_enabled_or_disabled(
    fake: FakeService, forebay: Forebay, command: str, answer: dict[str, object], told: str
) -> None:
    fake.answers(f"PATCH {PATH}/ep_1", answer)
    assert forebay("webhooks", command, "ep_1") == Ran(0, f"ep_1 is {told}\n", "")
    assert sent(fake) == {"enabled": command == "enable"}


@pytest.mark.parametrize(
    ("arguments", "path"), [(["ep_1"], f"{PATH}/ep_1/secret"), ([], "/v1/webhook-secret")], ids=["endpoint", "tenant"]
)
def test_a_secret_is_shown(fake: FakeService, forebay: Forebay, arguments: list[str], path: str) -> None:
    fake.answers(f"GET {path}", {"secret": "whsec_1"})
    assert forebay("webhooks", "secret", *arguments) == Ran(0, "whsec_1\n", "")


@pytest.mark.parametrize(
    ("arguments", "path"),
    [(["ep_1"], f"{PATH}/ep_1/rotate-secret"), ([], "/v1/webhook-secret/rotate")],
    ids=["endpoint", "tenant"],
)
def test_a_secret_is_rotated(fake: FakeService, forebay: Forebay, arguments: list[str], path: str) -> None:
    previous = {"secret": "whsec_1", "until": "2026-11-23T19:00:00.000000Z"}
    fake.answers(f"POST {path}", {"secret": "whsec_2", "previous": previous})
    ran = forebay("webhooks", "rotate", *arguments, "--overlap", "1h")
    assert ran == Ran(0, "whsec_2\n", "the secret before it signs too until 2026-11-23T19:00:00Z\n")
    assert sent(fake) == {"overlap_s": 3600}


def test_an_overlap_without_a_unit_is_refused_before_anything_is_sent(fake: FakeService, forebay: Forebay) -> None:
    assert "such as 90d" in forebay("webhooks", "rotate", "--overlap", "60").err
    assert fake.requests == []
