"""Who is told of a job, as a submission says it, and what became of it, as the API shows it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.api.conftest import NOW, TENANT, Api

from forebay.api.audience import KNOWN_FOR_S
from forebay.core.delivery import DeliveryEvent, DeliveryEventKind, DeliveryStatus
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind
from forebay.core.job_batch import BatchEvent, BatchEventKind
from forebay.core.webhook import WebhookEvent, WebhookTarget
from forebay.core.webhook_endpoint import HeldSecret, WebhookEndpoint, disabled
from forebay.core.wire import decode_any_event

URL = "https://hooks.example/forebay"
BAD = "http://hooks.example"


def endpoint(number: int, **facts: Any) -> WebhookEndpoint:
    return WebhookEndpoint(
        **{
            "id": f"ep_{number}",
            "tenant": TENANT,
            "url": URL,
            "secrets": (HeldSecret(secret="whsec_"),),
            "created_at": NOW + number,
            **facts,
        }
    )


def told(api: Api) -> tuple[WebhookTarget, ...]:
    return api.accepted().webhooks


# ------------------------------------------------------------------------------------------------------------ submit


async def test_a_job_may_name_an_address(api: Api) -> None:
    await api.submit(webhook={"url": URL})
    assert told(api) == (WebhookTarget(url=URL),)


async def test_a_job_may_say_what_is_told(api: Api) -> None:
    await api.submit(webhook={"url": URL, "events": ["started", "output"]})
    assert told(api) == (WebhookTarget(url=URL, events=(WebhookEvent.STARTED, WebhookEvent.OUTPUT)),)


async def test_the_simple_door_and_the_raw_one_take_an_address(api: Api) -> None:
    await api.http.post("/inference", json={"model_name": "echo", "data": 1, "webhook_url": URL})
    assert told(api) == (WebhookTarget(url=URL),)
    api.published.clear()
    headers = {"content-type": "application/json"}
    answer = await api.http.post("/v1/models/echo/jobs", content="1", headers=headers, params={"webhook_url": URL})
    assert answer.status_code == 202, answer.text
    assert told(api) == (WebhookTarget(url=URL),)


async def test_the_tenants_endpoints_are_told_too(api: Api) -> None:
    await api.endpoints.add(endpoint(1, events=tuple(WebhookEvent)))
    await api.endpoints.add(disabled(endpoint(2), NOW, "gone"))
    await api.endpoints.add(endpoint(3, tenant="other"))
    await api.submit(webhook={"url": URL})
    assert told(api) == (WebhookTarget(url=URL), WebhookTarget(endpoint="ep_1", events=tuple(WebhookEvent)))


async def test_a_new_endpoint_is_told_of_what_is_accepted_some_seconds_later(api: Api) -> None:
    await api.submit()
    await api.endpoints.add(endpoint(1))
    api.published.clear()
    api.clock.now += KNOWN_FOR_S
    await api.submit()
    assert told(api) == (WebhookTarget(endpoint="ep_1"),)


async def test_while_the_endpoints_cannot_be_read_what_was_known_holds(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.endpoints.add(endpoint(1))
    await api.submit()

    async def away(tenant: str) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(api.endpoints, "of_tenant", away)
    api.published.clear()
    api.clock.now += KNOWN_FOR_S
    await api.submit()
    assert told(api) == (WebhookTarget(endpoint="ep_1"),)


async def test_no_job_is_accepted_that_would_tell_no_endpoint_since_none_could_be_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_tenant = api.endpoints.of_tenant

    async def away(tenant: str) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(api.endpoints, "of_tenant", away)
    refused = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1})
    assert (refused.status_code, refused.json()["code"], api.published) == (503, "unavailable", [])
    monkeypatch.setattr(api.endpoints, "of_tenant", of_tenant)
    await api.endpoints.add(endpoint(1))
    await api.submit()
    assert told(api) == (WebhookTarget(endpoint="ep_1"),)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": BAD}, "#/webhook/url"),
        ({"url": ""}, "#/webhook/url"),
        ({"url": "https://" + "a" * 2048}, "#/webhook/url"),
        ({"url": URL, "events": []}, "#/webhook/events"),
        ({"url": URL, "events": ["ended"]}, "#/webhook/events/0"),
        ({"url": URL, "secret": "x"}, "#/webhook/secret"),
        (URL, "#/webhook"),
    ],
)
async def test_what_cannot_be_called_is_422_with_its_place(api: Api, body: Any, pointer: str) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1, "webhook": body})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert api.published == []


async def test_every_door_refuses_an_address_that_is_never_called(api: Api) -> None:
    simple = await api.http.post("/inference", json={"model_name": "echo", "data": 1, "webhook_url": BAD})
    assert [error["pointer"] for error in simple.json()["errors"]] == ["#/webhook_url"]
    query, headers = {"webhook_url": BAD}, {"content-type": "application/json"}
    raw = await api.http.post("/v1/models/echo/jobs", content="1", headers=headers, params=query)
    assert [error["parameter"] for error in raw.json()["errors"]] == ["webhook_url"]
    headers = {"content-type": "application/x-ndjson"}
    batch = await api.http.post("/v1/batches", content='{"model":"echo","input":1}', headers=headers, params=query)
    assert [error["parameter"] for error in batch.json()["errors"]] == ["webhook_url"]
    assert api.published == []


async def test_a_batch_tells_of_itself_and_a_line_only_where_it_says_so(api: Api) -> None:
    await api.endpoints.add(endpoint(1))
    lines = '{"input":1}\n{"input":2,"webhook":{"url":"https://line.example"}}\n'
    headers = {"content-type": "application/x-ndjson"}
    query = {"model": "echo", "webhook_url": URL}
    answer = await api.http.post("/v1/batches", content=lines, headers=headers, params=query)
    assert answer.status_code == 202, answer.text
    batch = [decode_any_event(one) for one in api.published if "batch" in one.headers["ce_type"]]
    assert batch[0].webhooks == (WebhookTarget(url=URL), WebhookTarget(endpoint="ep_1"))  # type: ignore[union-attr]
    lines_told = [one.headers.get("forebay-webhooks") for one in api.published if "forebay-line" in one.headers]
    assert lines_told == [None, '[{"url":"https://line.example"}]']


async def test_copies_under_one_key_tell_the_same_and_another_address_is_another_job(api: Api) -> None:
    headers = {"idempotency-key": "one"}
    body = {"model": "echo", "input": 1, "webhook": {"url": URL}}
    first = await api.http.post("/v1/jobs", json=body, headers=headers)
    again = await api.http.post("/v1/jobs", json=body, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = await api.http.post("/v1/jobs", json=body | {"webhook": {"url": f"{URL}/2"}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


# -------------------------------------------------------------------------------------------------------- deliveries


async def failed_job(api: Api, **webhook: Any) -> str:
    job = await api.submit(webhook={"url": URL, **webhook})
    await api.project_published()
    await api.event(job, EventKind.FAILED, attempt=1)
    return job


async def shown(api: Api, job: str) -> Any:
    [delivery] = (await api.http.get(f"/v1/jobs/{job}/deliveries")).json()["deliveries"]
    return delivery


async def tried(api: Api, job: str, delivery: str, outcome: DeliveryStatus) -> None:
    event = DeliveryEvent(
        tenant=TENANT,
        job_id=job,
        delivery_id=delivery,
        kind=DeliveryEventKind.TRIED,
        at=NOW + 5,
        number=1,
        status=500,
        latency_s=0.25,
        code="status",
        message="500 Internal Server Error",
        outcome=outcome,
        next_at=NOW + 10 if outcome is DeliveryStatus.PENDING else None,
    )
    await api.project(event)


async def test_a_job_shows_who_was_told_of_it(api: Api) -> None:
    job = await failed_job(api)
    before = await shown(api, job)
    assert (before["status"], before["type"], before["url"]) == ("pending", "job.failed", URL)
    assert (before["job_id"], before["tries"], before["tries_total"]) == (job, [], 0)
    await tried(api, job, before["id"], DeliveryStatus.PENDING)
    after = await shown(api, job)
    assert after["tries_total"] == 1
    assert after["tries"] == [
        {
            "number": 1,
            "at": "2025-11-24T16:00:05.123456Z",
            "status": 500,
            "latency_s": 0.25,
            "code": "status",
            "message": "500 Internal Server Error",
        }
    ]
    assert after["next_try_at"] == "2025-11-24T16:00:10.123456Z"


async def test_a_delivery_shows_what_is_sent(api: Api) -> None:
    job = await failed_job(api)
    found = (await api.http.get(f"/v1/jobs/{job}/deliveries/{(await shown(api, job))['id']}")).json()
    assert (found["payload"]["type"], found["payload"]["data"]["id"]) == ("job.failed", job)
    unknown = await api.http.get(f"/v1/jobs/{job}/deliveries/msg_0")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_delivery")


async def test_one_is_sent_again(api: Api) -> None:
    job = await failed_job(api)
    delivery = (await shown(api, job))["id"]
    await tried(api, job, delivery, DeliveryStatus.PARKED)
    assert (await shown(api, job))["reason"] == "status"
    answer = await api.http.post(f"/v1/jobs/{job}/deliveries/{delivery}/redeliver")
    assert (answer.status_code, answer.json()["status"], answer.json()["id"]) == (202, "pending", delivery)
    await api.project(decode_any_event(api.published[-1]))
    again = await shown(api, job)
    assert (again["status"], again["tries_total"], "reason" in again) == ("pending", 1, False)


async def test_those_of_a_batch_are_shown_and_sent_again_under_its_id(api: Api) -> None:
    batch = api.mint.of_realm("\0batch").issue(TENANT, NOW)
    facts: Any = {"tenant": TENANT, "batch_id": batch, "at": NOW}
    opened = BatchEvent(kind=BatchEventKind.OPENED, webhooks=(WebhookTarget(url=URL),), **facts)
    await api.project(opened, BatchEvent(kind=BatchEventKind.SEALED, **facts))
    delivery = await shown(api, batch)
    assert (delivery["type"], delivery["batch_id"], "job_id" in delivery) == ("batch.completed", batch, False)
    answer = await api.http.post(f"/v1/jobs/{batch}/deliveries/{delivery['id']}/redeliver")
    assert (answer.status_code, answer.json()["batch_id"]) == (202, batch)


async def test_all_that_are_parked_since_a_time_are_sent_again(api: Api) -> None:
    jobs = []
    for _ in range(3):
        api.clock.now += 60
        jobs.append(await failed_job(api))
        api.published.clear()
    for job in jobs:
        await tried(api, job, (await shown(api, job))["id"], DeliveryStatus.PARKED)
    listed = (await api.http.get("/v1/deliveries", params={"status": "parked"})).json()["deliveries"]
    assert [one["job_id"] for one in listed] == jobs
    answer = await api.http.post("/v1/deliveries/redeliver", params={"since": listed[1]["created_at"]})
    assert (answer.status_code, answer.json()) == (200, {"asked": 2})
    assert [message.job_id for message in api.published] == jobs[1:]


@pytest.mark.parametrize(
    "query", [{"status": "lost"}, {"since": "yesterday"}, {"limit": "0"}, {"cursor": "x"}, {"model": "echo"}]
)
async def test_a_filter_that_cannot_be_is_refused(api: Api, query: dict[str, str]) -> None:
    answer = await api.http.get("/v1/deliveries", params=query)
    assert (answer.status_code, [error["parameter"] for error in answer.json()["errors"]]) == (422, list(query))
