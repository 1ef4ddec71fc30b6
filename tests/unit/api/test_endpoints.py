"""Webhook endpoints and their secrets over HTTP. Whom a key lets in is in test_keys.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.api.conftest import NOW, TENANT, Api

from forebay.core.times import to_rfc3339
from forebay.core.webhook import WebhookEvent
from forebay.core.webhook_endpoint import ENDPOINTS_MOST, ITSELF, OVERLAP_S, disabled
from forebay.core.webhook_secret import secret_bytes

URL = "https://receiver.example/hook"
PATH = "/v1/webhook-endpoints"
MakeApi = Callable[..., Api]


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    """Every id and every secret is another."""
    numbers = itertools.count(1)
    return make_api(random_bytes=lambda count: next(numbers).to_bytes(count, "big"))


async def added(api: Api, **fields: Any) -> Any:
    answer = await api.http.post(PATH, json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def secret_of(api: Api, endpoint_id: str) -> Any:
    return (await api.http.get(f"{PATH}/{endpoint_id}/secret")).json()


async def test_one_is_added_and_its_secret_told(api: Api) -> None:
    answer = await api.http.post(PATH, json={"url": URL, "description": "mine"})
    told = answer.json()
    secret = told.pop("secret")
    assert len(secret_bytes(secret)) == 32
    assert told == {
        "id": told["id"],
        "url": URL,
        "events": ["completed"],
        "description": "mine",
        "enabled": True,
        "created_at": to_rfc3339(NOW),
    }
    assert answer.headers["location"] == f"{PATH}/{told['id']}"
    assert (await api.http.get(answer.headers["location"])).json() == told
    assert (await api.http.get(PATH)).json() == {"endpoints": [told]}
    assert await secret_of(api, told["id"]) == {"secret": secret}


async def test_events_come_once_and_in_order(api: Api) -> None:
    assert (await added(api, events=["completed", "started", "completed"]))["events"] == ["started", "completed"]


async def test_those_of_a_tenant_are_listed_the_oldest_first(api: Api) -> None:
    ids = []
    for _ in range(3):
        ids.append((await added(api))["id"])
        api.clock.now += 1
    assert len(set(ids)) == 3
    assert [one["id"] for one in (await api.http.get(PATH)).json()["endpoints"]] == ids


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/url"),
        ({"url": 1}, "#/url"),
        ({"url": ""}, "#/url"),
        ({"url": "https://" + "a" * 2048}, "#/url"),
        ({"url": "http://plain.example"}, "#/url"),
        ({"url": URL, "events": []}, "#/events"),
        ({"url": URL, "events": ["ended"]}, "#/events/0"),
        ({"url": URL, "events": None}, "#/events"),
        ({"url": URL, "description": "x" * 257}, "#/description"),
        ({"url": URL, "secret": "whsec_mine"}, "#/secret"),
        ([], "#"),
    ],
)
async def test_what_cannot_be_is_told_with_its_place(api: Api, body: Any, pointer: str) -> None:
    answer = await api.http.post(PATH, json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "whsec_mine" not in answer.text
    assert await api.endpoints.of_tenant(TENANT) == []


async def test_a_tenant_has_a_bounded_number_and_one_less_makes_room(api: Api) -> None:
    ids = [(await added(api))["id"] for _ in range(ENDPOINTS_MOST)]
    answer = await api.http.post(PATH, json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_endpoints")
    assert [one.id for one in await api.endpoints.of_tenant(TENANT)] == ids
    assert (await api.http.delete(f"{PATH}/{ids[0]}")).status_code == 204
    await added(api)


async def test_a_clock_that_was_set_back_makes_no_room(api: Api) -> None:
    for _ in range(ENDPOINTS_MOST):
        await added(api)
    api.clock.now -= 60
    assert (await api.http.post(PATH, json={"url": URL})).status_code == 409


async def test_a_change_alters_what_it_names_and_nothing_else(api: Api) -> None:
    endpoint = await added(api, description="mine")
    secret = endpoint.pop("secret")
    path = f"{PATH}/{endpoint['id']}"
    other = "https://other.example"
    assert (await api.http.patch(path, json={})).json() == endpoint
    changed = await api.http.patch(path, json={"url": other, "description": None})
    assert changed.json() == {**endpoint, "url": other}
    changed = await api.http.patch(path, json={"events": list(WebhookEvent), "description": ""})
    endpoint.pop("description")
    assert changed.json() == {**endpoint, "url": other, "events": list(WebhookEvent)}
    assert (await api.http.get(path)).json() == changed.json()
    assert (await secret_of(api, endpoint["id"]))["secret"] == secret


async def test_a_wrong_change_alters_nothing(api: Api) -> None:
    endpoint = await added(api)
    path = f"{PATH}/{endpoint['id']}"
    wrong: list[dict[str, Any]] = [{"url": "ftp://x"}, {"events": []}, {"enabled": "yes"}, {"secret": "x"}]
    for body in wrong:
        answer = await api.http.patch(path, json={"description": "new", **body})
        assert answer.status_code == 422
    assert (await api.http.get(path)).json() == {name: endpoint[name] for name in endpoint if name != "secret"}


async def test_one_is_disabled_and_enabled_again(api: Api) -> None:
    endpoint = await added(api)
    path = f"{PATH}/{endpoint['id']}"
    off = (await api.http.patch(path, json={"enabled": False})).json()
    told = (off["enabled"], off["disabled_at"], off["disabled_reason"])
    assert told == (False, to_rfc3339(NOW), "disabled on request")
    api.clock.now += 5
    assert (await api.http.patch(path, json={"enabled": False})).json() == off
    on = (await api.http.patch(path, json={"enabled": True})).json()
    assert on == {name: endpoint[name] for name in endpoint if name != "secret"}


async def test_one_that_fails_or_was_disabled_says_so(api: Api) -> None:
    endpoint_id = (await added(api))["id"]
    await api.endpoints.change(
        TENANT, endpoint_id, lambda one: disabled(replace(one, failing_since=NOW - 60), NOW, "it answered 410")
    )
    told = (await api.http.get(f"{PATH}/{endpoint_id}")).json()
    assert told["failing_since"] == to_rfc3339(NOW - 60)
    assert (told["enabled"], told["disabled_reason"]) == (False, "it answered 410")
    on = (await api.http.patch(f"{PATH}/{endpoint_id}", json={"enabled": True})).json()
    assert "failing_since" not in on


async def test_another_address_begins_with_a_clean_sheet(api: Api) -> None:
    endpoint_id = (await added(api))["id"]
    await api.endpoints.change(TENANT, endpoint_id, lambda one: replace(one, failing_since=NOW))
    path = f"{PATH}/{endpoint_id}"
    assert "failing_since" in (await api.http.patch(path, json={"url": URL})).json()
    assert "failing_since" not in (await api.http.patch(path, json={"url": f"{URL}/new"})).json()


async def test_one_that_is_removed_is_unknown(api: Api) -> None:
    path = f"{PATH}/{(await added(api))['id']}"
    assert (await api.http.delete(path)).status_code == 204
    for method, where in (
        ("GET", path),
        ("DELETE", path),
        ("GET", f"{path}/secret"),
        ("POST", f"{path}/rotate-secret"),
    ):
        answer = await api.http.request(method, where)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_endpoint")
    assert (await api.http.patch(path, json={})).status_code == 404


# ---------------------------------------------------------------------------------------------------------- secrets

BOTH = pytest.mark.parametrize("whose", ["endpoint", "tenant"])


async def paths_of(api: Api, whose: str) -> tuple[str, str]:
    """Where the secret is, and where it is rotated."""
    if whose == "tenant":
        return "/v1/webhook-secret", "/v1/webhook-secret/rotate"
    path = f"{PATH}/{(await added(api))['id']}"
    return f"{path}/secret", f"{path}/rotate-secret"


@BOTH
async def test_a_secret_stays_until_it_is_rotated(api: Api, whose: str) -> None:
    path, _ = await paths_of(api, whose)
    first = (await api.http.get(path)).json()
    assert len(secret_bytes(first["secret"])) == 32
    assert (await api.http.get(path)).json() == first == {"secret": first["secret"]}


@BOTH
async def test_the_old_secret_signs_beside_the_new_one_for_a_while(api: Api, whose: str) -> None:
    path, rotate = await paths_of(api, whose)
    old = (await api.http.get(path)).json()["secret"]
    rotated = (await api.http.post(rotate)).json()
    assert rotated == {
        "secret": rotated["secret"],
        "previous": {"secret": old, "until": to_rfc3339(NOW + OVERLAP_S)},
    }
    assert rotated["secret"] != old
    assert (await api.http.get(path)).json() == rotated
    api.clock.now += OVERLAP_S
    assert (await api.http.get(path)).json() == {"secret": rotated["secret"]}


@BOTH
async def test_the_overlap_is_as_asked(api: Api, whose: str) -> None:
    path, rotate = await paths_of(api, whose)
    old = (await api.http.get(path)).json()["secret"]
    rotated = (await api.http.post(rotate, json={"overlap_s": 60})).json()
    assert rotated["previous"] == {"secret": old, "until": to_rfc3339(NOW + 60)}
    at_once = (await api.http.post(rotate, json={"overlap_s": 0})).json()
    assert at_once == {"secret": at_once["secret"]}


@BOTH
@pytest.mark.parametrize("overlap_s", [-1, 604_801, "60", None])
async def test_an_overlap_that_cannot_be_rotates_nothing(api: Api, whose: str, overlap_s: Any) -> None:
    path, rotate = await paths_of(api, whose)
    before = (await api.http.get(path)).json()
    answer = await api.http.post(rotate, json={"overlap_s": overlap_s})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/overlap_s"]
    assert (await api.http.get(path)).json() == before


async def test_a_body_that_says_no_type_is_not_ignored(api: Api) -> None:
    _, rotate = await paths_of(api, "endpoint")
    assert (await api.http.post(rotate, content=b'{"overlap_s": 0}')).status_code == 415


async def test_a_secret_of_the_tenants_own_that_never_was_can_be_rotated(api: Api) -> None:
    assert (await api.http.post("/v1/webhook-secret/rotate")).status_code == 200


async def test_the_tenants_own_secret_is_no_endpoint(api: Api) -> None:
    await api.http.get("/v1/webhook-secret")
    assert await api.endpoints.get(TENANT, ITSELF) is not None
    assert (await api.http.get(PATH)).json() == {"endpoints": []}


@pytest.mark.parametrize("path", [PATH, f"{PATH}/ep_1", f"{PATH}/ep_1/secret", "/v1/webhook-secret"])
async def test_nothing_in_the_query_is_ignored_in_silence(api: Api, path: str) -> None:
    assert (await api.http.get(path, params={"tenant": "rival"})).status_code == 422
