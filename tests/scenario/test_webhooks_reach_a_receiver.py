"""Whoever is to be told of a job is told, signed, and never before it can be read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from standardwebhooks import Webhook
from tests.scenario.conftest import Begin, Client, until
from tests.scenario.listener import Listener, Message, listener
from tests.scenario.receivers import receiver

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

EMITS = {"chunks": 3, "hold_at": -1}
"""What the test model `talker` says in three pieces."""


class Told:
    """A service with a receiver beside it."""

    def __init__(self, client: Client, stack: ExitStack) -> None:
        self.client = client
        self.receiver = stack.enter_context(listener(lambda path: self.get(path)))

    def get(self, path: str) -> Any:
        answer = self.client.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, value: Any = None, status: int = 200) -> Any:
        answer = self.client.http.post(path, json=value)
        assert answer.status_code == status, answer.text
        return answer.json()

    @property
    def secret(self) -> str:
        return str(self.get("/v1/webhook-secret")["secret"])

    def deliveries(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"/v1/jobs/{job_id}/deliveries")["deliveries"]
        return found


@pytest.fixture
def told(begin: Begin, client_of: Callable[[RunningService], Client]) -> Iterator[Told]:
    with ExitStack() as stack:
        yield Told(client_of(begin("talker")), stack)


def verified(message: Message, secret: str) -> Any:
    """With the standard's own library."""
    return Webhook(secret).verify(message.body, dict(message.headers))


def came(to: Listener, job_id: str, kind: str) -> list[Message]:
    return [one for one in to.all("/job") if one.type == kind and json.loads(one.body)["data"]["id"] == job_id]


def test_a_job_tells_its_own_receiver_and_the_endpoint_what_can_be_read_by_then(told: Told) -> None:
    made = told.post("/v1/webhook-endpoints", {"url": f"{told.receiver.url}/endpoint"}, status=201)
    events = ["started", "output", "completed"]
    job_id = told.client.submit("talker", EMITS, webhook={"url": f"{told.receiver.url}/job", "events": events})

    [of_endpoint] = told.receiver.messages(1, "/endpoint")
    final = told.client.final(job_id)
    message = verified(of_endpoint, made["secret"])
    assert (message["type"], message["data"]["output"]) == ("job.succeeded", 3)
    assert message["data"] == final == of_endpoint.shown

    until(lambda: all(one["status"] == "delivered" for one in told.deliveries(job_id)), "all are delivered")
    outputs = [verified(one, told.secret)["data"] for one in came(told.receiver, job_id, "job.output")]
    in_order = sorted(outputs, key=lambda one: one["first"])
    assert [chunk for one in in_order for chunk in one["chunks"]] == [0, 1, 2]
    [started] = came(told.receiver, job_id, "job.started")
    [ended] = came(told.receiver, job_id, "job.succeeded")
    assert verified(started, told.secret)["data"]["started_at"] == final["started_at"]
    assert verified(ended, told.secret)["data"] == final == ended.shown
    assert started.shown["status"] in ("running", "succeeded")


def test_a_batch_tells_of_its_end_once_that_can_be_read(told: Told) -> None:
    lines = b'{"input": {"chunks": 0, "hold_at": -1}}\n' * 2
    put = told.client.http.put(
        f"/v1/batches/{uuid.uuid4()}",
        params={"model": "talker", "webhook_url": f"{told.receiver.url}/batch"},
        content=lines,
        headers={"content-type": "application/x-ndjson"},
    )
    assert put.status_code == 202, put.text
    [of_batch] = told.receiver.messages(1, "/batch")
    message = verified(of_batch, told.secret)
    assert (message["type"], message["data"]["id"]) == ("batch.completed", put.json()["id"])
    counts = message["data"]["counts"]
    assert (counts["total"], counts["succeeded"], counts["failed"]) == (2, 2, 0)
    assert (of_batch.shown["status"], of_batch.shown["counts"]["succeeded"]) == ("completed", 2)


def test_what_failed_comes_again_the_same_and_once_more_when_asked_for(told: Told) -> None:
    told.receiver.statuses = [500]
    job_id = told.client.submit("talker", EMITS, webhook={"url": f"{told.receiver.url}/"})
    first, second = told.receiver.messages(2)
    until(lambda: told.deliveries(job_id)[0]["status"] == "delivered", "it is delivered")
    [delivery] = told.deliveries(job_id)
    assert [one.get("status") for one in delivery["tries"]] == [500, 204]
    assert delivery["tries"][0]["message"] == "500 Internal Server Error"

    told.post(f"/v1/jobs/{job_id}/deliveries/{delivery['id']}/redeliver", status=202)
    *_, third = told.receiver.messages(3)
    assert {first.id, second.id, third.id} == {delivery["id"]}
    assert first.body == second.body == third.body
    assert [verified(one, told.secret)["type"] for one in (first, second, third)] == ["job.succeeded"] * 3
    assert int(first.headers["webhook-timestamp"]) < int(second.headers["webhook-timestamp"])

    until(lambda: told.deliveries(job_id)[0]["tries_total"] == 3, "the third try is known")
    since = delivery["created_at"]
    assert told.post(f"/v1/deliveries/redeliver?status=delivered&since={since}")["asked"] == 1
    assert told.receiver.messages(4)[-1].id == delivery["id"]


def test_the_example_receiver_takes_what_comes(
    start: Callable[..., RunningService], client_of: Callable[[RunningService], Client]
) -> None:
    client = client_of(start("talker"))
    with receiver("plain", client.http.get("/v1/webhook-secret").json()["secret"]) as example:
        job_id = client.submit("talker", EMITS, webhook={"url": example.url, "events": ["started", "completed"]})
        printed = sorted(example.printed.readline() for _ in range(2))
    assert printed == [f"job.started {job_id}\n", f"job.succeeded {job_id}\n"]
