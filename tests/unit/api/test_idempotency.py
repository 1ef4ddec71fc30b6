"""One key, one job: every copy of a request is answered with the same job, and another request is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.unit.api.conftest import TENANT, Api

from forebay.adapters.memory import MemoryLog, MemoryQueue, MemoryStore
from forebay.api.idempotency import LEASE_S
from forebay.core.errors import OutcomeUnknown, TooMany, Unavailable
from forebay.core.event import EventKind
from forebay.core.message import Channel, Message
from forebay.core.times import to_rfc3339
from forebay.core.wire import decode
from forebay.ports.event_log import LogBatch

MakeApi = Callable[..., Api]
JOB = {"model": "echo", "input": {"b": 1, "a": [2]}}
UUID = "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
TAKEN = "0000ffff-0000-4000-8000-000000000000"


async def submit(api: Api, key: str | None = '"k1"', body: Any = JOB, path: str = "/v1/jobs") -> Any:
    api.clock.now += 1
    return await api.http.post(path, json=body, headers={} if key is None else {"idempotency-key": key})


async def put(api: Api, uuid: str = UUID, body: Any = JOB) -> Any:
    api.clock.now += 1
    return await api.http.put(f"/v1/jobs/{uuid}", json=body)


async def test_a_copy_is_answered_with_the_same_job_and_says_so(api: Api) -> None:
    first, second = await submit(api), await submit(api)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"]
    assert len(api.published) == 1
    assert api.counted("forebay_jobs_submitted_total", model="echo", lane="normal") == 1


@pytest.mark.parametrize("other", ["k1", '"k1"', ' "k1"  '])
async def test_quotes_make_no_other_key(api: Api, other: str) -> None:
    assert (await submit(api, '"k1"')).json()["id"] == (await submit(api, other)).json()["id"]


async def test_the_order_of_members_makes_no_other_request(api: Api) -> None:
    text = '{"input": {"a": [2],   "b": 1}, "model": "echo"}'
    first = await submit(api)
    headers = {"idempotency-key": "k1", "content-type": "application/json"}
    second = await api.http.post("/v1/jobs", content=text, headers=headers)
    assert second.json()["id"] == first.json()["id"]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "echo", "input": {"b": 1, "a": [3]}},
        {**JOB, "lane": "high"},
        {**JOB, "version": "2"},
        {**JOB, "metadata": {"n": 1}},
        {**JOB, "start_within_s": 5},
        {"model": "sentiment", "input": "good"},
    ],
)
async def test_another_request_with_the_same_key_is_refused(api: Api, body: Any) -> None:
    await submit(api)
    answer = await submit(api, body=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert len(api.published) == 1


async def test_another_key_and_no_key_are_other_jobs(api: Api) -> None:
    answers = [await submit(api), await submit(api, "k2"), await submit(api, None), await submit(api, None)]
    assert len({answer.json()["id"] for answer in answers}) == 4


async def test_the_simple_door_and_raw_bodies_take_keys_too(api: Api) -> None:
    simple = {"model_name": "sentiment", "data": "good"}
    first = [await submit(api, "simple", simple, "/inference") for _ in range(2)]
    assert first[0].json() == first[1].json()
    raw = []
    for _ in range(2):
        headers = {"idempotency-key": "raw", "content-type": "text/plain"}
        raw.append(await api.http.post("/v1/models/sentiment/jobs", content="good", headers=headers))
    assert raw[0].json() == raw[1].json()
    assert len(api.published) == 2


async def test_a_copy_may_wait_for_the_result(api: Api) -> None:
    job_id = (await submit(api)).json()["id"]
    await api.project_published()
    await api.succeed(job_id, b"1")
    answer = await api.http.post("/v1/jobs", json=JOB, headers={"idempotency-key": "k1", "prefer": "wait=1"})
    assert (answer.status_code, answer.json()["status"], answer.json()["id"]) == (200, "succeeded", job_id)
    assert answer.headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("headers", [{}, {"prefer": "wait=2"}])
async def test_a_copy_of_a_deleted_job_is_told_that_it_is_gone(api: Api, headers: dict[str, str]) -> None:
    job_id = (await put(api)).json()["id"]
    await api.project_published()
    await api.succeed(job_id, b"1")
    await api.event(job_id, EventKind.DELETED)
    answer = await api.http.put(f"/v1/jobs/{UUID}", json=JOB, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (410, "job_gone")


@pytest.mark.parametrize("key", ['""', "", " ", '"a', 'a"b"', "a b", "a,b", "a;b", "é", '"é"', "x" * 256, '"a\\b"'])
async def test_what_is_no_key_is_422_and_nothing_is_submitted(api: Api, key: str) -> None:
    answer = await api.http.post("/v1/jobs", json=JOB, headers=[(b"idempotency-key", key.encode())])
    assert answer.status_code == 422
    assert [error["header"] for error in answer.json()["errors"]] == ["Idempotency-Key"]
    assert api.published == []


async def test_two_keys_are_none(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json=JOB, headers=[("idempotency-key", "a"), ("idempotency-key", "b")])
    assert answer.status_code == 422


async def test_a_key_holds_for_a_day(api: Api) -> None:
    first = (await submit(api)).json()["id"]
    api.clock.now += 86_390
    assert (await submit(api)).json()["id"] == first
    api.clock.now += 10
    assert (await submit(api)).json()["id"] != first


async def test_an_invalid_request_uses_up_no_key(api: Api) -> None:
    assert (await submit(api, body={"model": "sentiment", "input": 1})).status_code == 422
    assert (await submit(api)).status_code == 202


# ------------------------------------------------------------------------------------------------- when it goes wrong


class Gates(MemoryQueue):
    """Publishing waits, or fails as it is told to."""

    def __init__(self, shared: MemoryLog) -> None:
        super().__init__(shared)
        self.open = asyncio.Event()
        self.open.set()
        self.reached = asyncio.Event()
        self.failures: list[Exception] = []
        self.writes_all_the_same = False

    async def publish(self, channel: Channel, messages: Sequence[Message]) -> None:
        self.reached.set()
        await self.open.wait()
        failure = self.failures.pop(0) if self.failures else None
        if failure is None or self.writes_all_the_same:
            await super().publish(channel, messages)
        if failure is not None:
            raise failure


@pytest.fixture
def gated(make_api: MakeApi) -> Api:
    log = MemoryLog()
    made = make_api(queue=Gates(log))
    made.log = log
    return made


def gates(api: Api) -> Gates:
    assert isinstance(api.queue, Gates)
    return api.queue


async def test_of_many_copies_at_once_none_is_answered_before_the_job_is_durable(gated: Api) -> None:
    gates(gated).open.clear()
    at_once: dict[str, Any] = {
        "json": JOB,
        "headers": {"idempotency-key": "k1"},
    }  # by the clock, too: none has waited for long
    copies = [asyncio.create_task(gated.http.post("/v1/jobs", **at_once)) for _ in range(20)]
    await gates(gated).reached.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not any(copy.done() for copy in copies)
    gates(gated).open.set()
    answers = await asyncio.gather(*copies)
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.json()["id"] for answer in accepted}) == 1
    assert [answer.json()["code"] for answer in answers if answer.status_code != 202] == []
    assert len(gated.published) == 1


async def test_a_copy_that_waits_too_long_is_told_to_ask_again(gated: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.api.idempotency.WAIT_S", 0.0)
    second = other_process(gated)
    gates(gated).open.clear()
    first = asyncio.create_task(submit(gated))
    await gates(gated).reached.wait()
    answer = await submit(second)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
    assert (answer.headers["retry-after"], answer.json()["retry_after_s"]) == ("1", 1.0)
    gates(gated).open.set()
    assert (await first).json()["id"] == (await submit(second)).json()["id"]
    await second.http.aclose()


async def test_what_was_not_written_can_be_tried_again_at_once_and_elsewhere(gated: Api) -> None:
    second = other_process(gated)
    gates(gated).failures = [Unavailable("away")]
    assert (await submit(gated)).status_code == 503
    answer = await submit(second)
    assert answer.status_code == 202
    assert "idempotency-replayed" not in answer.headers
    assert len(gated.published) == 1
    await second.http.aclose()


@pytest.mark.parametrize("error", [Unavailable("away"), TooMany("no room", retry_after_s=1.0)], ids=["away", "full"])
async def test_a_refused_submission_leaves_nothing_behind(gated: Api, error: Exception) -> None:
    gates(gated).failures = [error, error]
    assert (await put(gated)).status_code in (429, 503)
    assert (await gated.http.get(f"/v1/jobs/{UUID}")).status_code == 404
    assert (await gated.http.post(f"/v1/jobs/{UUID}/cancel")).status_code == 404
    assert (await submit(gated)).status_code in (429, 503)
    answer = await submit(gated, body={"model": "echo", "input": 2})
    assert (answer.status_code, answer.json()["created_at"]) == (202, to_rfc3339(int(gated.clock.now * 1000) / 1000))
    assert (await put(gated, body={"model": "echo", "input": 2})).status_code == 202


async def test_what_may_have_been_written_before_is_kept_when_a_later_copy_is_refused(gated: Api) -> None:
    gates(gated).failures = [OutcomeUnknown("nobody knows", job_id="x"), Unavailable("away")]
    statuses = [(await put(gated)).json()["code"] for _ in range(2)]
    assert statuses == ["outcome_unknown", "unavailable"]
    assert (await gated.http.get(f"/v1/jobs/{UUID}")).json()["status"] == "queued"
    assert (await put(gated, body={"model": "echo", "input": 2})).json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("written", [True, False])
async def test_of_an_unknown_outcome_comes_the_same_job_with_the_same_bytes(gated: Api, written: bool) -> None:
    gates(gated).failures = [OutcomeUnknown("nobody knows", job_id="x")]
    gates(gated).writes_all_the_same = written
    assert (await submit(gated)).json()["code"] == "outcome_unknown"
    gates(gated).writes_all_the_same = False
    answer = await submit(gated)
    assert answer.status_code == 202
    assert {message.job_id for message in gated.published} == {answer.json()["id"]}
    assert len({(tuple(sorted(one.headers.items())), one.value) for one in gated.published}) == 1


async def test_of_a_process_that_died_another_takes_over_the_same_job(
    gated: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.idempotency.LEASE_S", 0.0)
    second = other_process(gated)
    gates(gated).open.clear()
    dying = asyncio.create_task(submit(gated))
    await gates(gated).reached.wait()
    dying.cancel()
    await asyncio.wait({dying})
    gates(gated).open.set()
    answer = await submit(second)
    assert answer.status_code == 202
    assert [one.job_id for one in gated.published] == [answer.json()["id"]]
    await second.http.aclose()


async def test_of_a_process_that_died_after_it_published_the_log_tells(gated: Api) -> None:
    first = (await submit(gated)).json()["id"]
    projected = MemoryStore()
    facts = tuple(decode(message) for message in gated.published)
    await projected.project([LogBatch(source="log", start="", end="1", facts=facts)])
    second = other_process(gated, store=projected)
    answer = await submit(second)
    assert (answer.json()["id"], answer.headers["idempotency-replayed"]) == (first, "true")
    await second.http.aclose()


def other_process(api: Api, *, store: MemoryStore | None = None) -> Api:
    """On the same queue and, unless another is given, the same store; with a name of its own."""
    shared: Any = {"store": store or api.store, "random_bytes": lambda count: b"\x02" * count}
    return Api(queue=api.queue, **shared)


def test_a_lease_outlasts_a_submission_without_a_backend() -> None:
    assert LEASE_S > 3.0 + 5.0


# ------------------------------------------------------------------------------------------------- a UUID of theirs


async def test_a_job_under_a_uuid_is_one_job(api: Api) -> None:
    first, second = await put(api), await put(api, UUID.upper())
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert first.json()["id"].startswith(UUID + "-")
    assert second.headers["idempotency-replayed"] == "true"
    assert len(api.published) == 1


async def test_another_body_under_it_is_refused(api: Api) -> None:
    await put(api)
    answer = await put(api, body={"model": "echo", "input": 2})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_it_is_there_at_once_by_the_uuid_and_by_the_id(api: Api) -> None:
    said = (await put(api)).json()
    for name in (UUID, UUID.upper(), said["id"]):
        answer = await api.http.get(f"/v1/jobs/{name}")
        assert (answer.status_code, answer.json()["id"], answer.json()["status"]) == (200, said["id"], "queued")
        assert answer.json()["created_at"] == said["created_at"]
    api.clock.now += 600
    assert (await api.http.get(f"/v1/jobs/{UUID}")).status_code == 200  # it was accepted, whatever its age
    await api.project_published()
    await api.succeed(said["id"], b"1")
    assert (await api.http.get(f"/v1/jobs/{UUID}/result")).content == b"1"
    assert (await api.http.post(f"/v1/jobs/{UUID}/cancel")).json()["status"] == "succeeded"


async def test_a_uuid_that_nobody_used_is_unknown(api: Api) -> None:
    await put(api)
    assert (await api.http.get(f"/v1/jobs/{TAKEN}")).status_code == 404
    assert (await api.http.get(f"/v1/jobs/{api.mint.of_uuid(TENANT, TAKEN)}")).status_code == 404
    assert (await api.http.get(f"/v1/jobs/{api.mint.of_uuid('another', UUID)}")).status_code == 404


@pytest.mark.parametrize("uuid", ["x", UUID[:-1], UUID.replace("-", ""), UUID + "0", "g" + UUID[1:]])
async def test_what_is_no_uuid_is_422(api: Api, uuid: str) -> None:
    assert (await put(api, uuid)).status_code == 422
    assert api.published == []


async def test_under_a_uuid_of_an_older_job_nothing_is_submitted(api: Api) -> None:
    first = (await put(api)).json()["id"]
    await api.project_published()
    api.clock.now += 10 * 86_400
    copy = await put(api)
    assert (copy.status_code, copy.json()["id"], copy.headers["idempotency-replayed"]) == (202, first, "true")
    assert (await put(api, body={"model": "echo", "input": 2})).json()["code"] == "idempotency_key_reused"
    api.store._reservations.clear()
    forgotten = await put(api)
    assert (forgotten.status_code, forgotten.json()["code"]) == (409, "job_exists")
    assert len(api.published) == 1


async def test_it_is_there_though_its_reservation_could_not_be_marked(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(reservation: object) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(api.store, "published", away)
    assert (await put(api)).status_code == 202
    assert (await api.http.get(f"/v1/jobs/{UUID}")).json()["status"] == "queued"


async def test_it_takes_no_other_key(api: Api) -> None:
    answer = await api.http.put(f"/v1/jobs/{UUID}", json=JOB, headers={"idempotency-key": "k"})
    assert (answer.status_code, api.published) == (422, [])


async def test_a_store_that_is_away_does_not_close_the_door_for_jobs_without_a_key(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(api.store, "reserve", away)
    assert (await submit(api)).status_code == 503
    assert (await api.http.get("/readyz")).json() != {}
    assert (await submit(api, None)).status_code == 202


async def test_the_uuid_of_another_tenant_is_another_job(api: Api) -> None:
    mine = (await put(api)).json()["id"]
    assert mine != api.mint.of_uuid("another", UUID)
