"""Dead letters: failed jobs that nobody has done again; listed, shown, exported, redriven."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.unit.api.conftest import INLINE_LIMIT_BYTES, NOW, TENANT, Api
from tests.unit.api.test_retrying import ERROR, catch_up, fail, failed
from tests.unit.api.test_submitting import PNG

from forebay.adapters.memory import MemoryEventLog, MemoryLog, MemoryQueue
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobError, JobEvent, JobRequest
from forebay.core.ids import uuid_of_retry
from forebay.core.message import Message
from forebay.core.payload import Payload
from forebay.core.reservation import Reservation, digest_of_key
from forebay.core.wire import decode_request, encode_request

MakeApi = Callable[..., Api]


async def many(api: Api, count: int) -> list[str]:
    """Dead letters, the newest first."""
    ids: list[str] = []
    for _ in range(count):
        api.clock.now += 1
        ids.append(await api.submit("echo", len(ids)))
    await catch_up(api)
    for job_id in ids:
        await api.event(job_id, EventKind.FAILED, attempt=1, error=ERROR)
    return ids[::-1]


async def listed(api: Api, **query: Any) -> list[str]:
    answer = await api.http.get("/v1/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["dead_letters"]]


async def redrive(api: Api, **query: Any) -> dict[str, Any]:
    answer = await api.http.post("/v1/dead-letters/redrive", params={"rate": 1000, **query})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


# ------------------------------------------------------------------------------------------------------------ looking


async def test_only_failed_jobs_are_listed_the_newest_first(api: Api) -> None:
    ids = await many(api, 3)
    done = await api.submit()
    await catch_up(api)
    await api.succeed(done)
    assert await listed(api) == ids


async def test_a_list_goes_on_from_page_to_page(api: Api) -> None:
    ids = await many(api, 5)
    first = (await api.http.get("/v1/dead-letters", params={"limit": 3})).json()
    assert [job["id"] for job in first["dead_letters"]] == ids[:3]
    assert await listed(api, cursor=first["next_cursor"]) == ids[3:]


async def test_a_list_is_filtered_by_model_code_and_time(api: Api) -> None:
    other = await failed(api)
    await catch_up(api)
    ids = await many(api, 2)
    api.clock.now += 1
    third = await api.submit("echo", 1)
    await fail(api, third, JobError(code="other_code", message="m"))
    assert await listed(api, model="sentiment") == [other]
    assert await listed(api, code="no_face", model="echo") == ids
    assert await listed(api, code="other_code") == [third]
    assert await listed(api, created_before="2025-11-24T16:00:01.5Z") == [other]
    assert other not in await listed(api, created_after="2025-11-24T16:00:01.5Z")


@pytest.mark.parametrize(
    "query", [{"status": "failed"}, {"limit": "0"}, {"cursor": "?"}, {"created_after": "now"}, {"rate": "1"}]
)
async def test_a_filter_that_cannot_be_is_refused(api: Api, query: dict[str, str]) -> None:
    answer = await api.http.get("/v1/dead-letters", params=query)
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, next(iter(query)))


async def test_one_that_was_done_again_is_listed_no_more_and_can_still_be_looked_at(api: Api) -> None:
    first, second = await many(api, 2)
    new = (await api.http.post(f"/v1/jobs/{first}/retry")).json()["id"]
    assert await listed(api) == [second]
    shown = (await api.http.get(f"/v1/dead-letters/{first}")).json()
    assert (shown["id"], shown["retried_by"]) == (first, [new])


async def test_a_dead_letter_shows_who_ran_it_when_and_what_it_was_asked(api: Api) -> None:
    job_id = await api.submit("echo", {"a": 1}, metadata={"order": 7})
    await catch_up(api)
    retryable = JobError(code="not_yet", message="wait", retryable=True)
    events: tuple[dict[str, Any], ...] = (
        {"kind": EventKind.STARTED, "attempt": 1, "worker": "w-1", "at": NOW + 1},
        {"kind": EventKind.QUEUED, "attempt": 1, "worker": "w-1", "at": NOW + 2, "error": retryable},
        {"kind": EventKind.STARTED, "attempt": 2, "worker": "w-2", "at": NOW + 3},
        {"kind": EventKind.STARTED, "attempt": 3, "worker": "w-3", "at": NOW + 4},
        {"kind": EventKind.FAILED, "attempt": 3, "worker": "w-3", "at": NOW + 5, "error": ERROR},
    )
    for event in events:
        await api.event(job_id, **event)
    shown = (await api.http.get(f"/v1/dead-letters/{job_id}")).json()
    at = "2025-11-24T16:00:0{}.123456Z"
    assert shown["history"] == [
        {
            "attempt": 1,
            "worker": "w-1",
            "started_at": at.format(1),
            "finished_at": at.format(2),
            "error": {"code": "not_yet", "message": "wait", "retryable": True},
        },
        {"attempt": 2, "worker": "w-2", "started_at": at.format(3)},
        {
            "attempt": 3,
            "worker": "w-3",
            "started_at": at.format(4),
            "finished_at": at.format(5),
            "error": {"code": "no_face", "message": "no face found", "retryable": False},
        },
    ]
    assert shown["headers"] == dict(api.published[0].headers)
    assert shown["input"] == {"media_type": "application/json", "size_bytes": 7}
    assert (shown["status"], shown["error"]["code"], shown["metadata"]) == ("failed", "no_face", {"order": 7})
    assert "retried_by" not in shown


async def test_what_the_log_has_let_go_of_is_absent(api: Api) -> None:
    job_id = await failed(api)
    api.log.messages.clear()
    shown = (await api.http.get(f"/v1/dead-letters/{job_id}")).json()
    assert (shown["id"], len(shown["history"])) == (job_id, 1)
    assert not {"headers", "input"} & shown.keys()


async def test_a_job_that_has_not_failed_is_no_dead_letter(api: Api) -> None:
    job_id = await api.submit()
    for method, path in (("GET", ""), ("POST", "/redrive")):
        answer = await api.http.request(method, f"/v1/dead-letters/{job_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_dead_letter")


async def test_a_search_passes_over_any_number_that_were_done_again(api: Api) -> None:
    ids = await many(api, 260)
    for job_id in ids[:-1]:
        assert (await api.http.post(f"/v1/jobs/{job_id}/retry")).status_code == 202
    assert await listed(api, limit=1) == [ids[-1]]


# ----------------------------------------------------------------------------------------------------------- redriving


async def test_one_is_redriven_once(api: Api) -> None:
    job_id = await failed(api)
    answers = await asyncio.gather(*(api.http.post(f"/v1/dead-letters/{job_id}/redrive") for _ in range(5)))
    [new] = {answer.json()["id"] for answer in answers}
    assert {answer.status_code for answer in answers} == {202}
    await fail(api, new)
    again = await api.http.post(f"/v1/dead-letters/{job_id}/redrive")
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (200, new, "failed")
    assert again.headers["idempotency-replayed"] == "true"
    assert len(api.published) == 2
    assert await listed(api) == [new]


async def test_one_that_was_redriven_is_told_even_when_its_input_is_gone(api: Api) -> None:
    job_id = await failed(api)
    new = (await api.http.post(f"/v1/dead-letters/{job_id}/redrive")).json()["id"]
    await catch_up(api)
    api.log.messages.clear()
    assert (await api.http.post(f"/v1/dead-letters/{job_id}/redrive")).json()["id"] == new


async def test_one_whose_redrive_was_deleted_is_said_to_be_done(api: Api) -> None:
    job_id = await failed(api)
    new = (await api.http.post(f"/v1/dead-letters/{job_id}/redrive")).json()["id"]
    await fail(api, new)
    await api.event(new, EventKind.DELETED)
    answer = await api.http.post(f"/v1/dead-letters/{job_id}/redrive")
    assert (answer.status_code, answer.json()["code"]) == (410, "job_gone")
    assert new in answer.json()["detail"]


async def test_one_that_another_process_is_redriving_ends_a_call_that_says_how_far_it_got(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.idempotency.WAIT_S", 0.0)
    ids = await many(api, 3)
    held = await reserved_by_another(api, ids[2])
    done = await redrive(api)
    assert [job["retry_of"] for job in done["jobs"]] == ids[:2]
    answer = await api.http.post("/v1/dead-letters/redrive", params={"cursor": done["next_cursor"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
    await api.store.release(held, holder="another")
    assert (await redrive(api, cursor=done["next_cursor"]))["redriven"] == 1


async def reserved_by_another(api: Api, job_id: str) -> Reservation:
    """The reservation of its redrive, which another process holds."""
    uuid = uuid_of_retry(TENANT, job_id, 1)
    wanted = Reservation(
        tenant=TENANT,
        key=digest_of_key("uuid", uuid),
        job_id=api.mint.of_uuid(TENANT, uuid),
        fingerprint=digest_of_key("retry", job_id),
        accepted_at=api.clock.now,
    )
    assert (await api.store.reserve(wanted, holder="another", lease_s=60.0)).held
    return wanted


async def test_many_are_redriven_each_once_however_often_it_is_asked_for(api: Api) -> None:
    ids = await many(api, 40)
    done = await redrive(api)
    assert (done["redriven"], done["already"], done["gone"], done["refused"]) == (40, 0, 0, 0)
    assert [job["retry_of"] for job in done["jobs"]] == ids
    assert "next_cursor" not in done
    assert (await redrive(api))["redriven"] == 0
    assert len(api.published) == 80


async def test_two_who_redrive_at_once_share_the_work(api: Api) -> None:
    ids = await many(api, 40)
    first, second = await asyncio.gather(redrive(api), redrive(api))
    assert sorted(job["retry_of"] for done in (first, second) for job in done["jobs"]) == sorted(ids)
    assert len(api.published) == 80


async def test_only_those_that_fit_are_redriven(api: Api) -> None:
    other = await failed(api)
    await many(api, 2)
    done = await redrive(api, model="sentiment", code="no_face")
    assert [job["retry_of"] for job in done["jobs"]] == [other]
    assert (await redrive(api, code="unheard_of"))["redriven"] == 0


async def test_a_limit_ends_it_and_a_cursor_goes_on(api: Api) -> None:
    ids = await many(api, 20)
    done = await redrive(api, limit=17)
    assert [job["retry_of"] for job in done["jobs"]] == ids[:17]
    done = await redrive(api, cursor=done["next_cursor"])
    assert [job["retry_of"] for job in done["jobs"]] == ids[17:]


async def test_an_answer_comes_in_time_and_says_where_to_go_on(api: Api) -> None:
    ids = await many(api, 5)
    sound = api.queue.publish

    async def slowly(*arguments: Any) -> None:
        api.clock.now += 2.0
        await sound(*arguments)

    api.queue.publish = slowly  # type: ignore[method-assign,assignment]  # for this test
    done = await redrive(api)
    assert [job["retry_of"] for job in done["jobs"]] == ids[:3]
    done = await redrive(api, cursor=done["next_cursor"])
    assert [job["retry_of"] for job in done["jobs"]] == ids[3:]
    assert "next_cursor" not in done


async def test_however_long_a_look_takes_each_call_gets_on(make_api: MakeApi) -> None:
    class Slow(MemoryEventLog):
        async def at(self, places: Sequence[str]) -> list[Message | None]:
            api.clock.now += 9.0
            return await super().at(places)

    log = MemoryLog()
    api = make_api(events=Slow(log), queue=MemoryQueue(log))
    api.log = log
    ids = await many(api, 3)
    redriven: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        done = await redrive(api, **cursor)
        redriven += [job["retry_of"] for job in done["jobs"]]
        if "next_cursor" not in done:
            break
        cursor = {"cursor": done["next_cursor"]}
    assert redriven == ids


async def test_what_cannot_be_redriven_is_counted_and_left(api: Api) -> None:
    gone, fine = await many(api, 2)
    message = api.published[1]
    api.log.messages[1] = Message(tenant="other", job_id="x", headers=message.headers, value=b"")
    payload = Payload(media_type="application/json", data=b"1")
    old = api.mint.issue(TENANT, NOW)
    forgotten = JobRequest(tenant=TENANT, job_id=old, model="forgotten", accepted_at=NOW, input=payload)
    api.log.append([encode_request(forgotten)])
    await api.project(
        JobRequest(tenant=TENANT, job_id=old, model="forgotten", accepted_at=NOW, input=payload, place="2"),
        JobEvent(tenant=TENANT, job_id=old, kind=EventKind.FAILED, at=NOW, attempt=1, error=ERROR),
    )
    done = await redrive(api)
    assert (done["redriven"], done["gone"], done["refused"]) == (1, 1, 1)
    assert done["jobs"][0]["retry_of"] == fine
    assert await listed(api) == [gone, old]


async def test_when_the_queue_goes_away_under_way_it_says_how_far_it_got(api: Api) -> None:
    ids = await many(api, 5)
    sound, left = api.queue.publish, 2

    async def publish(*arguments: Any) -> None:
        nonlocal left
        if not left:
            raise Unavailable("the queue is away")
        left -= 1
        await sound(*arguments)

    api.queue.publish = publish  # type: ignore[method-assign,assignment]  # for this test
    done = await redrive(api)
    assert [job["retry_of"] for job in done["jobs"]] == ids[:2]
    answer = await api.http.post("/v1/dead-letters/redrive", params={"cursor": done["next_cursor"]})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    left = 9
    done = await redrive(api, cursor=done["next_cursor"])
    assert [job["retry_of"] for job in done["jobs"]] == ids[2:]


@pytest.mark.parametrize("query", [{"rate": "0"}, {"rate": "1001"}, {"rate": "0.5"}, {"limit": "1001"}, {"modle": "x"}])
async def test_what_cannot_be_asked_of_a_redrive_is_refused(api: Api, query: dict[str, str]) -> None:
    await many(api, 1)
    answer = await api.http.post("/v1/dead-letters/redrive", params=query)
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, next(iter(query)))


async def test_filters_in_a_body_are_refused_since_they_would_be_ignored(api: Api) -> None:
    await many(api, 1)
    answer = await api.http.post("/v1/dead-letters/redrive", json={"model": "sentiment"})
    assert answer.status_code == 422
    assert len(api.published) == 1


# ----------------------------------------------------------------------------------------------------------- exporting


async def exported(api: Api, **query: Any) -> list[dict[str, Any]]:
    answer = await api.http.get("/v1/dead-letters/export", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.text == "" or answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_an_export_has_a_line_for_each_with_its_input(api: Api) -> None:
    ids = await many(api, 40)
    lines = await exported(api)
    assert [line["id"] for line in lines] == ids
    assert [line["input"]["value"] for line in lines] == list(range(39, -1, -1))
    shown = (await api.http.get(f"/v1/dead-letters/{ids[0]}")).json()
    del lines[0]["input"]["value"]
    assert lines[0] == shown
    assert [line["id"] for line in await exported(api, limit=20)] == ids[:20]
    assert await exported(api, code="unheard_of") == []


async def test_an_input_is_exported_as_json_text_or_bytes_wherever_it_lies(api: Api) -> None:
    large = "é" * INLINE_LIMIT_BYTES
    await failed(api, value=large)
    api.clock.now += 1
    answer = await api.http.post("/v1/models/photo/jobs", content=PNG, headers={"content-type": "image/png"})
    await fail(api, answer.json()["id"])
    lost = await failed(api, value=large + "!")
    blob = await lost_blob(api, lost)
    inputs = {line["id"]: line["input"] for line in await exported(api)}
    assert inputs.pop(lost) == {"media_type": "text/plain", "size_bytes": blob}
    assert sorted((one.get("text"), one.get("base64")) for one in inputs.values() if "text" in one) == [(large, None)]
    [image] = [one for one in inputs.values() if "base64" in one]
    assert base64.b64decode(image["base64"]) == PNG


async def lost_blob(api: Api, job_id: str) -> int:
    """The size of its input, which is gone."""
    [ref] = [
        ref
        for message in api.published
        if message.job_id == job_id and (ref := decode_request(message).input.blob) is not None
    ]
    await api.blobs.delete_job(TENANT, job_id)
    return ref.size_bytes


async def test_nobody_wants_the_lines_of_a_head_request(api: Api) -> None:
    await many(api, 1)
    answer = await api.http.head("/v1/dead-letters/export")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_an_export_that_cannot_begin_is_a_503(make_api: MakeApi) -> None:
    class Away(MemoryEventLog):
        async def at(self, places: object) -> list[Message | None]:
            raise Unavailable("the log is away")

    api = make_api(events=Away(MemoryLog()))
    await failed(api)
    answer = await api.http.get("/v1/dead-letters/export")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_an_export_that_the_service_cuts_short_does_not_look_whole(api: Api) -> None:
    await many(api, 40)
    sound = api.store.list_jobs

    async def draining(*arguments: Any) -> Any:
        if len(seen) == 1:
            api.draining.set()
        seen.append(arguments)
        return await sound(*arguments)

    seen: list[Any] = []
    api.store.list_jobs = draining  # type: ignore[method-assign,assignment]  # for this test
    with pytest.raises(RuntimeError, match="already started"):
        await api.http.get("/v1/dead-letters/export")
