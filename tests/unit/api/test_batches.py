"""Many jobs as the lines of one file: accepted line by line, counted, canceled, and given back in their order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from tests.unit.api.conftest import MAX_BODY_BYTES, TENANT, Api
from tests.unit.api.test_edge import ask

from forebay.adapters.memory import MemoryEventLog, MemoryLog, MemoryQueue, MemoryStore
from forebay.api.batch_lines import PART_LINES
from forebay.api.batch_upload import CUSTOM_ID_CHARS, _rejected
from forebay.api.problems import InvalidFields
from forebay.core.errors import OutcomeUnknown, Unavailable
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.job_batch import BatchEvent, BatchEventKind, line_job_id
from forebay.core.message import Channel, Message
from forebay.core.payload import JSON, Payload
from forebay.core.quota import Quota
from forebay.core.wire import decode, encode_event
from forebay.ports.event_log import LogBatch

MakeApi = Callable[..., Api]
TYPE = {"content-type": "application/x-ndjson"}
UUID = "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
PATH = f"/v1/batches/{UUID}?model=echo"


def file(count: int, **more: Any) -> bytes:
    return b"".join(
        json.dumps({"input": n, "custom_id": f"row {n}", **more}).encode() + b"\n" for n in range(1, count + 1)
    )


async def send(api: Api, body: Any, path: str = PATH, method: str = "PUT", **headers: str) -> Any:
    return await api.http.request(method, path, content=body, headers={**TYPE, **headers})


async def project(api: Api, since: int = 0) -> None:
    """What was published behind the first `since` messages."""
    await api.project(*(decode(message) for message in api.published[since:]))


def requests(api: Api) -> list[JobRequest]:
    facts = [decode(message) for message in api.published]
    return [fact for fact in facts if isinstance(fact, JobRequest)]


def said(api: Api) -> list[str]:
    return [fact.kind.value for message in api.published if isinstance(fact := decode(message), BatchEvent)]


async def finish(api: Api, batch_id: str, lines: Sequence[int], output: Payload | None = None) -> None:
    for line in lines:
        payload = output or Payload(media_type=JSON, data=b"%d" % line)
        await api.succeed(line_job_id(TENANT, batch_id, line), payload=payload)


async def results(api: Api, batch_id: str, query: str = "") -> tuple[int, list[Any]]:
    answer = await api.http.get(f"/v1/batches/{batch_id}/results{query}")
    assert answer.headers["content-type"] == "application/x-ndjson"
    return answer.status_code, [json.loads(line) for line in answer.text.splitlines()]


# ---------------------------------------------------------------------------------------------------------- the upload


async def test_each_line_is_a_job(api: Api) -> None:
    answer = await send(api, file(3), "/v1/batches?model=echo&lane=low", "POST")
    assert answer.status_code == 202
    batch = answer.json()
    assert answer.headers["location"] == f"/v1/batches/{batch['id']}"
    assert (batch["status"], batch["counts"]["total"], batch["counts"]["queued"]) == ("running", 3, 3)
    assert "rejected" not in batch
    found = requests(api)
    assert [(one.input.data, one.lane, one.model) for one in found] == [(b"%d" % n, "low", "echo") for n in (1, 2, 3)]
    assert [one.job_id for one in found] == [line_job_id(TENANT, batch["id"], n) for n in (1, 2, 3)]
    assert [one.line.custom_id for one in found if one.line] == ["row 1", "row 2", "row 3"]
    assert said(api) == ["opened", "lines", "sealed"]
    assert api.counted("forebay_jobs_submitted_total", model="echo", lane="low") == 3


async def test_what_a_line_says_goes_before_the_query(api: Api) -> None:
    lines = [
        {"input": 1},
        {"input": "good", "model": "sentiment", "lane": "high", "metadata": {"n": 1}, "parameters": {"top_k": 2}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    query = {"model": "echo", "lane": "low", "start_within_s": "5", "parameters": "{}"}
    answer = await api.http.post("/v1/batches", params=query, content=body, headers=TYPE)
    assert (answer.status_code, answer.json()["counts"]["rejected"]) == (202, 0)
    first, second = requests(api)
    assert (first.model, first.lane, first.start_within_s) == ("echo", "low", 5.0)
    assert (second.model, second.lane, second.start_within_s, second.metadata) == ("sentiment", "high", 5.0, {"n": 1})
    assert second.parameters == {"top_k": 2}


BAD = [
    (b"{", "malformed_json", ""),
    (b"NaN", "malformed_json", ""),
    (b'{"input": NaN}', "malformed_json", ""),
    (b'{"input": "\xff"}', "malformed_json", ""),
    (b"[" * 200 + b"]" * 200, "malformed_json", ""),
    (b'{"input": ' + b"[" * 120 + b"]" * 120 + b"}", "malformed_json", ""),
    (b"[1]", "invalid_request", ""),
    (b'{"custom_id": "mine"}', "invalid_request", "/input"),
    (b'{"input": 1, "inptu": 2}', "invalid_request", "/inptu"),
    (b'{"input": 1, "lane": "fast"}', "invalid_request", "/lane"),
    (b'{"input": 1, "model": "sentiment"}', "invalid_request", "/input"),
    (b'{"input": 1, "model": "nobody"}', "unknown_model", ""),
    (b'{"input": 1, "custom_id": 7}', "invalid_request", "/custom_id"),
    (b'{"input": 1, "custom_id": "a\\nb"}', "invalid_request", "/custom_id"),
    (b'{"input": 1, "run_timeout_s": 1e9}', "invalid_request", "/run_timeout_s"),
    (b'{"input": 1, "max_queue_length": 9}', "invalid_request", "/max_queue_length"),
    (b'{"input": 1, "run_timeout_s": 0.999}', "invalid_request", "/run_timeout_s"),
    (b'{"input": "' + b"x" * MAX_BODY_BYTES + b'"}', "payload_too_large", ""),
]


@pytest.mark.parametrize(("line", "code", "pointer"), BAD)
async def test_one_bad_line_is_rejected_alone_with_its_number(api: Api, line: bytes, code: str, pointer: str) -> None:
    answer = await send(api, b'{"input": 1}\r\n\r\n' + line + b'\n{"input": 4}')
    assert answer.status_code == 202
    batch = answer.json()
    assert (batch["counts"]["total"], batch["counts"]["queued"], batch["counts"]["rejected"]) == (3, 2, 1)
    [rejected] = batch["rejected"]
    assert (rejected["line"], rejected["error"]["code"], rejected["error"].get("pointer", "")) == (3, code, pointer)
    assert "the body" not in rejected["error"]["message"]
    await project(api)
    _, found = await results(api, batch["id"])
    assert [(one["line"], one["status"]) for one in found] == [(1, "queued"), (3, "rejected"), (4, "queued")]
    assert found[1]["error"] == rejected["error"]
    assert api.counted("forebay_jobs_rejected_total", code=code) == 1


async def test_a_rejected_line_keeps_its_name(api: Api) -> None:
    batch = (await send(api, b'{"custom_id": "mine"}')).json()
    assert [one["custom_id"] for one in batch["rejected"]] == ["mine"]
    assert batch["status"] == "completed"


async def test_of_many_mistakes_the_first_are_told_and_all_are_among_the_results(api: Api) -> None:
    batch = (await send(api, b"{\n" * 1000)).json()
    assert [one["line"] for one in batch["rejected"]] == list(range(1, 101))
    await project(api)
    status, found = await results(api, batch["id"])
    assert (status, [one["line"] for one in found]) == (200, list(range(1, 1001)))


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("model=nobody", 404, "unknown_model"),
        ("model=echo&lane=fast", 422, "invalid_request"),
        ("model=echo&parameters=[1]", 422, "invalid_request"),
        ("model=echo&top_k=3", 422, "invalid_request"),
        ("model=echo&run_timeout_s=1e9", 422, "invalid_request"),
        ("model=echo&max_queue_length=9", 422, "invalid_request"),
        ("model=echo&run_timeout_s=0.999", 422, "invalid_request"),
    ],
)
async def test_what_no_line_could_have_is_refused_at_once(api: Api, query: str, status: int, code: str) -> None:
    answer = await send(api, file(2), f"/v1/batches?{query}", "POST")
    assert (answer.status_code, answer.json()["code"], api.published) == (status, code, [])


async def test_a_body_of_another_kind_is_refused(api: Api) -> None:
    answer = await api.http.post("/v1/batches?model=echo", json=[1])
    assert (answer.status_code, api.published) == (415, [])
    assert "application/x-ndjson" in answer.json()["accepted"]


async def test_a_body_may_be_larger_than_a_jobs_and_its_large_inputs_go_into_the_blob_store(api: Api) -> None:
    body = file(50, metadata={"x": "y" * 1000})
    assert len(body) > 2 * MAX_BODY_BYTES
    assert (await send(api, body)).json()["counts"]["queued"] == 50
    large = json.dumps({"input": "z" * 5000}).encode()
    batch = (await send(api, large, "/v1/batches?model=echo", "POST")).json()
    blob = requests(api)[-1].input.blob
    assert blob is not None
    assert blob.name.startswith(f"{TENANT}/{line_job_id(TENANT, batch['id'], 1)}/")


async def test_lines_are_accepted_while_the_body_comes_in(api: Api) -> None:
    seen: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield file(PART_LINES)
            await asyncio.sleep(0)
            seen.append(len(requests(api)))

    assert (await send(api, body())).json()["counts"]["total"] == 3 * PART_LINES
    assert seen[-1] >= 2 * PART_LINES


async def test_more_lines_than_a_batch_may_have_are_told_and_none_is_dropped_in_silence(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.batch_upload.LINES_MOST", 5)
    answer = await send(api, file(7))
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["limit_lines"]) == (413, "too_many_lines", 100_000)
    assert [one.line.number for one in requests(api) if one.line] == [1, 2, 3, 4, 5]
    await project(api)
    batch = (await api.http.get(f"/v1/batches/{problem['batch_id']}")).json()
    assert (batch["status"], batch["counts"]["queued"]) == ("incomplete", 5)
    before = len(api.published)
    assert (await send(api, file(5))).json()["status"] == "running"
    assert len(requests(api)) == 5
    await project(api, before)
    assert (await api.http.get(f"/v1/batches/{UUID}")).json()["status"] == "running"


# ------------------------------------------------------------------------------------------------------------ once more


async def test_a_copy_makes_no_second_job(api: Api) -> None:
    first = await send(api, file(900))
    await project(api)
    api.clock.now += 3 * 86_400
    second = await send(api, file(900))
    assert second.json()["id"] == first.json()["id"]
    assert (second.headers["idempotency-replayed"], "idempotency-replayed" in first.headers) == ("true", False)
    assert len(requests(api)) == 900
    assert said(api) == ["opened", "lines", "lines", "lines", "sealed"]


async def test_a_key_names_one_batch(api: Api) -> None:
    path = "/v1/batches?model=echo"
    copies = [await send(api, file(3), path, "POST", **{"idempotency-key": "k"}) for _ in range(2)]
    assert copies[0].json()["id"] == copies[1].json()["id"]
    assert len(requests(api)) == 3
    for body, query in ((file(4), ""), (file(3), "&lane=low")):
        other = await send(api, body, path + query, "POST", **{"idempotency-key": "k"})
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(requests(api)) == 3


@pytest.mark.parametrize("body", [file(2), file(4), file(3).replace(b"row 2", b"row 7"), b"\n" + file(3), b""])
async def test_another_file_under_the_same_id_is_refused(api: Api, body: bytes) -> None:
    await send(api, file(3))
    answer = await send(api, body)
    assert (answer.status_code, answer.json()["code"]) == (409, "batch_differs")
    assert len(requests(api)) == 3


async def test_no_line_comes_behind_the_end(api: Api) -> None:
    await send(api, file(PART_LINES))
    assert (await send(api, file(PART_LINES + 1))).json()["code"] == "batch_differs"
    assert len(requests(api)) == PART_LINES


async def test_other_defaults_make_it_another_file(api: Api) -> None:
    await send(api, file(3))
    answer = await send(api, file(3), f"{PATH}&lane=high")
    assert (answer.status_code, answer.json()["code"]) == (409, "batch_differs")


async def test_an_upload_that_breaks_off_leaves_an_incomplete_batch_and_can_go_on(api: Api) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield file(PART_LINES + 10)
        raise ClientDisconnect

    with pytest.raises(AssertionError):  # of the transport: nobody is there to be answered
        await send(api, body(), "/v1/batches?model=echo", "POST")
    assert (len(requests(api)), said(api)) == (PART_LINES, ["opened", "lines"])
    await project(api)
    before = len(api.published)
    [batch] = (await api.http.get("/v1/batches")).json()["batches"]
    assert (batch["status"], batch["counts"]["total"]) == ("incomplete", PART_LINES)
    answer = await send(api, file(PART_LINES + 20), f"/v1/batches/{batch['id']}?model=echo")
    assert answer.json()["counts"]["total"] == PART_LINES + 20
    numbers = [one.line.number for one in requests(api) if one.line]
    assert numbers == list(range(1, PART_LINES + 21))
    await project(api, before)
    assert (await api.http.get(f"/v1/batches/{batch['id']}")).json()["status"] == "running"


class Gates(MemoryQueue):
    """Fails the next publishings, perhaps after it has written."""

    failures: list[bool | OutcomeUnknown]

    def __init__(self, shared: MemoryLog) -> None:
        super().__init__(shared)
        self.failures = []
        self.open = asyncio.Event()
        self.open.set()
        self.reached = asyncio.Event()

    async def publish(self, channel: Channel, messages: Sequence[Message]) -> None:
        self.reached.set()
        await self.open.wait()
        if not self.failures:
            return await super().publish(channel, messages)
        failure = self.failures.pop(0)
        if isinstance(failure, OutcomeUnknown):
            raise failure
        if failure:
            await super().publish(channel, messages)
        raise Unavailable("away")


@pytest.mark.parametrize("written", [True, False])
async def test_a_part_that_could_not_be_written_is_written_again_under_the_same_ids(
    make_api: MakeApi, written: bool
) -> None:
    log = MemoryLog()
    queue = Gates(log)
    api = make_api(queue=queue)
    api.log = log
    queue.failures = [written]
    answer = await send(api, file(3))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert f"send the same file once more: PUT /v1/batches/{answer.json()['batch_id']}." in answer.json()["detail"]
    api.clock.now += 1
    again = await send(api, file(3))
    assert (again.status_code, again.json()["id"]) == (202, answer.json()["batch_id"])
    found = requests(api)
    assert len(found) == (6 if written else 3)
    assert len({(one.job_id, one.accepted_at, one.line) for one in found}) == 3


async def test_a_line_of_which_nobody_knows_is_no_reason_not_to_send_the_file_again(make_api: MakeApi) -> None:
    log = MemoryLog()
    queue = Gates(log)
    api = make_api(queue=queue)
    queue.failures = [OutcomeUnknown("the disk did not answer", job_id="one of them")]
    answer = (await send(api, file(3))).json()
    assert (answer["code"], "job_id" in answer) == ("outcome_unknown", False)
    assert "send the same file once more" in answer["detail"]


class Silent(MemoryEventLog):
    """Nobody knows what it has taken."""

    async def publish(self, events: Any) -> None:
        raise OutcomeUnknown("no answer", job_id="the batch")


@pytest.mark.parametrize(("method", "path"), [("PUT", PATH), ("POST", "/v1/batches?model=echo")])
async def test_a_batch_that_may_have_been_begun_is_named(make_api: MakeApi, method: str, path: str) -> None:
    api = make_api(events=Silent(MemoryLog()))
    answer = (await send(api, file(3), path, method)).json()
    assert (answer["code"], "job_id" in answer) == ("outcome_unknown", False)
    assert f"PUT /v1/batches/{answer['batch_id']}." in answer["detail"]


async def test_of_a_process_that_died_in_a_part_another_takes_over_the_same_jobs(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.idempotency.LEASE_S", 0.0)
    log = MemoryLog()
    queue = Gates(log)
    api = make_api(queue=queue)
    api.log = log
    queue.open.clear()
    dying = asyncio.create_task(send(api, file(3)))
    await queue.reached.wait()
    dying.cancel()
    await asyncio.wait({dying})
    queue.open.set()
    other = make_api(queue=queue, store=api.store, random_bytes=lambda count: b"\x02" * count)
    assert (await send(other, file(3))).status_code == 202
    assert len({(one.job_id, one.accepted_at) for one in requests(api)}) == len(requests(api)) == 3


async def test_lines_count_against_the_quota_and_go_on_when_there_is_room(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_minute=PART_LINES + 10))
    refused = await send(api, file(PART_LINES + 20))
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert len(requests(api)) == PART_LINES
    api.clock.now += 61
    again = await send(api, file(PART_LINES + 20))
    assert (again.status_code, again.json()["id"]) == (202, refused.json()["batch_id"])
    assert len(requests(api)) == PART_LINES + 20


async def test_a_long_line_takes_its_room_of_all_large_bodies(make_api: MakeApi) -> None:
    api = make_api(max_body_bytes=600_000, body_budget_bytes=600_000, inline_limit_bytes=1_000_000)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"input": "' + b"x" * 500_000
        other = await send(api, b'{"input": "' + b"y" * 500_000 + b'"}', "/v1/batches?model=echo", "POST")
        assert (other.status_code, other.json()["code"]) == (503, "overloaded")
        yield b'"}'

    assert (await send(api, body())).json()["counts"]["queued"] == 1


async def test_of_copies_at_once_each_line_is_published_once(api: Api) -> None:
    answers = await asyncio.gather(*(send(api, file(1000)) for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len(requests(api)) == 1000


async def test_a_stopping_service_takes_no_more_of_it(api: Api) -> None:
    api.draining.set()
    answer = await send(api, file(3))
    assert (answer.status_code, requests(api)) == (503, [])
    api.draining.clear()
    assert (await send(api, file(3))).status_code == 202


# ------------------------------------------------------------------------------------------------------------- reading


async def test_counts_follow_the_jobs(api: Api) -> None:
    batch_id = (await send(api, file(4))).json()["id"]
    early = (await api.http.get(f"/v1/batches/{batch_id}")).json()
    assert early["status"] == "incomplete"  # nothing is visible yet, and yet it is known
    await project(api)
    await finish(api, batch_id, [1, 3])
    await api.event(line_job_id(TENANT, batch_id, 2), EventKind.STARTED, attempt=1)
    for name in (batch_id, UUID, UUID.upper()):
        batch = (await api.http.get(f"/v1/batches/{name}")).json()
        counts = {name: count for name, count in batch["counts"].items() if count}
        assert (batch["status"], counts) == ("running", {"total": 4, "queued": 1, "running": 1, "succeeded": 2})
        assert "finished_at" not in batch
    await finish(api, batch_id, [2, 4])
    batch = (await api.http.get(f"/v1/batches/{batch_id}")).json()
    assert (batch["status"], batch["counts"]["succeeded"]) == ("completed", 4)
    assert "finished_at" in batch


async def test_results_come_in_the_order_of_the_lines(api: Api) -> None:
    batch_id = (await send(api, file(3) + b"{\n" + file(1))).json()["id"]
    await project(api)
    await finish(api, batch_id, [3, 1])
    failed = JobEvent(tenant=TENANT, job_id=line_job_id(TENANT, batch_id, 2), kind=EventKind.CANCELED, at=api.clock.now)
    await api.project(failed)
    status, found = await results(api, batch_id)
    assert status == 202
    assert [(one["line"], one["status"], one.get("output")) for one in found] == [
        (1, "succeeded", 1),
        (2, "canceled", None),
        (3, "succeeded", 3),
        (4, "rejected", None),
        (5, "queued", None),
    ]
    assert [one.get("custom_id") for one in found] == ["row 1", "row 2", "row 3", None, "row 1"]
    await finish(api, batch_id, [5])
    assert (await results(api, batch_id))[0] == 200
    assert [one["line"] for one in (await results(api, batch_id, "?after_line=3"))[1]] == [4, 5]
    job = (await api.http.get(f"/v1/jobs/{found[0]['id']}")).json()
    assert (job["output"], job["batch"]) == (1, {"id": batch_id, "line": 1, "custom_id": "row 1"})


async def test_every_line_of_a_result_is_one_line(api: Api) -> None:
    batch_id = (await send(api, file(3))).json()["id"]
    await project(api)
    await finish(api, batch_id, [1], Payload(media_type=JSON, data=b'{\n "a": "b\\n"\n}'))
    await finish(api, batch_id, [2], Payload(media_type="image/png", data=b"\n\n"))
    blob = await api.blobs.put(TENANT, line_job_id(TENANT, batch_id, 3), b"[1]")
    await finish(api, batch_id, [3], Payload(media_type=JSON, blob=blob))
    _, (one, two, three) = await results(api, batch_id)
    assert (one["output"], three["output"]) == ({"a": "b\n"}, [1])
    assert (two["media_type"], two["output_url"], "output" in two) == (
        "image/png",
        f"/v1/jobs/{two['id']}/result",
        False,
    )
    assert (await api.http.get(two["output_url"])).content == b"\n\n"


async def test_results_of_a_large_batch_come_in_pieces(api: Api) -> None:
    batch_id = (await send(api, file(2500))).json()["id"]
    await project(api)
    _, found = await results(api, batch_id)
    assert [one["line"] for one in found] == list(range(1, 2501))
    assert (await api.http.head(f"/v1/batches/{batch_id}/results")).content == b""


async def test_an_output_that_is_lost_keeps_no_other_from_its_caller(api: Api) -> None:
    batch_id = (await send(api, file(3))).json()["id"]
    await project(api)
    job_id = line_job_id(TENANT, batch_id, 2)
    lost = await api.blobs.put(TENANT, job_id, b"[2]")
    await finish(api, batch_id, [1, 3])
    await finish(api, batch_id, [2], Payload(media_type=JSON, blob=lost))
    await api.blobs.delete_job(TENANT, job_id)
    status, found = await results(api, batch_id)
    assert (status, [one.get("output") for one in found]) == (200, [1, None, 3])
    assert (found[1]["status"], found[1]["error"]["code"]) == ("succeeded", "blob_damaged")


async def test_nothing_is_read_for_a_caller_who_has_left(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id = (await send(api, file(900))).json()["id"]
    await project(api)
    monkeypatch.setattr("forebay.api.batch_reading.FLUSH_BYTES", 1)
    left = await ask(api, "GET", f"/v1/batches/{batch_id}/results", hang_up=True)
    assert (left.status, left.body.count(b"\n")) == (202, 1)


async def test_batches_are_listed_page_by_page(api: Api) -> None:
    made = []
    for n in range(3):
        api.clock.now += 1
        made.append((await send(api, file(1), f"/v1/batches/{UUID[:-1]}{n}?model=echo")).json()["id"])
    await project(api)
    page = (await api.http.get("/v1/batches?limit=2")).json()
    assert [one["id"] for one in page["batches"]] == [made[2], made[1]]
    page = (await api.http.get(f"/v1/batches?limit=2&cursor={page['next_cursor']}")).json()
    assert ([one["id"] for one in page["batches"]], "next_cursor" in page) == ([made[0]], False)


@pytest.mark.parametrize(
    "path", ["?limit=0", "?cursor=x", "?model=a", f"/{UUID}?x=1", f"/{UUID}/results?after_line=-1"]
)
async def test_a_query_that_cannot_be_is_refused(api: Api, path: str) -> None:
    await send(api, file(1))
    assert (await api.http.get(f"/v1/batches{path}")).status_code == 422


async def test_an_unknown_batch_and_a_job_are_no_batch(api: Api) -> None:
    job_id = await api.submit()
    theirs = api.mint.of_realm("\0batch").issue("rival", api.clock.now)
    for name in (UUID, job_id, theirs, "x"):
        for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel")):
            answer = await api.http.request(method, f"/v1/batches/{name}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_batch")
    batch_id = (await send(api, file(1))).json()["id"]
    assert (await api.http.get(f"/v1/jobs/{batch_id}")).status_code == 404


@pytest.mark.parametrize("name", ["x", UUID[:-1], "nothing-of-ours"])
async def test_what_is_no_uuid_takes_no_file(api: Api, name: str) -> None:
    assert (await send(api, file(1), f"/v1/batches/{name}?model=echo")).status_code == 422
    assert api.published == []


# ------------------------------------------------------------------------------------------------------------ canceling


class Following(MemoryStore):
    """Reads the log whenever it is asked for a batch."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__()
        self._log = log
        self._read = 0

    async def batch(self, tenant: str, batch_id: str) -> Any:
        facts = tuple(decode(message) for message in self._log.messages[self._read :])
        start, self._read = self._read, len(self._log.messages)
        await self.project([LogBatch(source="log", start=str(start or ""), end=str(self._read), facts=facts)])
        return await super().batch(tenant, batch_id)


@pytest.fixture
def followed(make_api: MakeApi) -> Api:
    log = MemoryLog()
    made = make_api(queue=MemoryQueue(log), store=Following(log), events=MemoryEventLog(log))
    made.log = log
    return made


async def test_canceling_ends_what_is_not_final(followed: Api) -> None:
    batch_id = (await send(followed, file(1200))).json()["id"]
    answer = await followed.http.post(f"/v1/batches/{batch_id}/cancel")
    assert answer.status_code == 200
    batch = answer.json()
    assert (batch["status"], batch["counts"]["canceled"], batch["counts"]["total"]) == ("canceled", 1200, 1200)
    assert (TENANT, line_job_id(TENANT, batch_id, 7)) in followed.cancellations.heard
    before = len(followed.published)
    assert (await followed.http.post(f"/v1/batches/{batch_id}/cancel")).json() == batch
    assert len(followed.published) == before
    again = await send(followed, file(1200))
    assert (again.status_code, again.json()["code"]) == (409, "batch_canceled")


async def test_an_incomplete_batch_takes_no_line_once_it_is_canceled(followed: Api) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield file(PART_LINES)
        canceled = await followed.http.post(f"/v1/batches/{UUID}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
        yield file(PART_LINES)

    answer = await send(followed, body())
    assert (answer.status_code, answer.json()["code"]) == (409, "batch_canceled")
    batch = (await followed.http.get(f"/v1/batches/{UUID}")).json()
    assert (batch["status"], batch["counts"]["total"], batch["counts"]["canceled"]) == (
        "canceled",
        PART_LINES,
        PART_LINES,
    )


async def test_a_completed_batch_stays_so(followed: Api) -> None:
    await send(followed, b"{\n")
    answer = await followed.http.post(f"/v1/batches/{UUID}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")


async def test_where_states_are_far_behind_it_is_202_and_can_be_sent_again(api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr("forebay.api.batch_reading.CANCELED_WITHIN_S", 0.0)
    await send(api, file(3))
    await project(api)
    answer = await api.http.post(f"/v1/batches/{UUID}/cancel")
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")


async def test_a_full_queue_stops_an_upload_and_the_same_file_goes_on_later(make_api: Callable[..., Api]) -> None:
    api = make_api(max_queue_length=3)
    for _ in range(3):
        api.clock.now += 0.01
        await api.submit("echo", 1)
    refused = await send(api, file(2))
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    for job in requests(api):
        await api.project(job, JobEvent(tenant=TENANT, job_id=job.job_id, kind=EventKind.STARTED, at=1.0, attempt=1))
    api.clock.now += 1.0
    assert (await send(api, file(2))).status_code in (200, 201, 202)


def test_the_word_on_a_part_of_mistakes_fits_into_a_record() -> None:
    """However long they are: what is told of a line is bounded."""
    error = InvalidFields("😀" * 1000, [("/" + "😀" * 1000, "wrong")])
    rejected = tuple(_rejected(number, "😀" * CUSTOM_ID_CHARS, error) for number in range(PART_LINES))
    event = BatchEvent(tenant=TENANT, batch_id=UUID, kind=BatchEventKind.LINES, at=0.0, rejected=rejected)
    assert len(encode_event(event).value) < 1_000_000


async def test_a_clock_that_cannot_be_in_the_query_is_told_as_its_parameter(api: Api) -> None:
    answer = await api.http.post(
        "/v1/batches?model=echo&retain_s=1", content=b'{"input": 1}', headers={"content-type": "application/x-ndjson"}
    )
    assert answer.status_code == 422
    assert [error["parameter"] for error in answer.json()["errors"]] == ["retain_s"]
