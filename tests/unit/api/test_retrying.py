"""Doing a job again: one new job, from the input that the log has kept; the old one stays as it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.api.conftest import CATALOG, INLINE_LIMIT_BYTES, TENANT, Api

from forebay.adapters.memory import MemoryEventLog, MemoryLog
from forebay.catalog import Catalog
from forebay.core.errors import OutcomeUnknown, Unavailable
from forebay.core.event import BatchLine, EventKind, JobError
from forebay.core.message import Channel, Message
from forebay.core.wire import decode, decode_request, encode_request

MakeApi = Callable[..., Api]
ERROR = JobError(code="no_face", message="no face found")


async def catch_up(api: Api) -> None:
    """The projector's part: all that was published, each with its place."""
    await api.project(*(decode(message, str(place)) for place, message in enumerate(api.published)))


async def fail(api: Api, job_id: str, error: JobError = ERROR) -> None:
    await catch_up(api)
    await api.event(job_id, EventKind.STARTED, attempt=1, worker="w-1")
    await api.event(job_id, EventKind.FAILED, attempt=1, worker="w-1", error=error)


async def failed(api: Api, **fields: Any) -> str:
    api.clock.now += 1  # another id
    job_id = await api.submit(**fields)
    await fail(api, job_id)
    return job_id


async def retry(api: Api, job_id: str, status: int = 202) -> dict[str, Any]:
    answer = await api.http.post(f"/v1/jobs/{job_id}/retry")
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_a_retry_is_a_new_job_that_asks_for_the_same(api: Api) -> None:
    asked = {"lane": "low", "metadata": {"a": 1}, "start_within_s": 9.0, "run_timeout_s": 8.0, "version": "2"}
    old = await failed(api, model="echo", value={"x": [1]}, **asked)
    answer = await api.http.post(f"/v1/jobs/{old}/retry")
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
    assert (job["retry_of"], job["status"], job["attempts"], job["metadata"]) == (old, "queued", 0, {"a": 1})
    before, after = map(decode_request, api.published)
    assert after.job_id == job["id"] != old
    assert after.key
    assert replace(after, job_id=old, accepted_at=before.accepted_at, key="", fingerprint="", retry_of="") == before


async def test_the_old_job_stays_as_it_is_byte_for_byte(api: Api) -> None:
    old = await failed(api)
    before = (await api.http.get(f"/v1/jobs/{old}")).content
    new = (await retry(api, old))["id"]
    await catch_up(api)
    await api.succeed(new)
    assert (await api.http.get(f"/v1/jobs/{old}")).content == before
    assert (await api.http.get(f"/v1/jobs/{new}")).json()["retry_of"] == old


async def test_a_retry_is_known_before_it_is_in_the_store_and_can_be_asked_for_by_its_uuid(api: Api) -> None:
    new = (await retry(api, await failed(api)))["id"]
    for job_id in (new, new[:36]):
        assert (await api.http.get(f"/v1/jobs/{job_id}")).json()["status"] == "queued"


async def test_of_any_number_of_copies_there_is_one_job(api: Api) -> None:
    old = await failed(api)
    answers = await asyncio.gather(*(api.http.post(f"/v1/jobs/{old}/retry") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len(api.published) == 2
    assert api.counted("forebay_jobs_retried_total", model="sentiment") == 1


async def test_a_retry_that_goes_on_or_has_succeeded_is_the_answer(api: Api) -> None:
    old = await failed(api)
    new = (await retry(api, old))["id"]
    await catch_up(api)
    assert (await retry(api, old))["id"] == new
    await api.succeed(new)
    again = await retry(api, old, 200)
    assert (again["id"], again["status"]) == (new, "succeeded")
    assert "output" not in again
    assert len(api.published) == 2


@pytest.mark.parametrize("kind", [EventKind.FAILED, EventKind.CANCELED, EventKind.EXPIRED])
async def test_after_one_that_ended_without_success_there_is_another(api: Api, kind: EventKind) -> None:
    old = await failed(api)
    first = (await retry(api, old))["id"]
    await catch_up(api)
    await api.event(first, kind)
    second = await retry(api, old)
    assert second["id"] not in (old, first)
    assert second["retry_of"] == old
    assert (await retry(api, first))["retry_of"] == first


@pytest.mark.parametrize("kind", [EventKind.CANCELED, EventKind.EXPIRED])
async def test_what_was_canceled_or_expired_can_be_retried_too(api: Api, kind: EventKind) -> None:
    old = await api.submit()
    await catch_up(api)
    await api.event(old, kind)
    assert (await retry(api, old))["retry_of"] == old


async def test_a_job_that_has_not_ended_or_has_succeeded_is_not_retried(api: Api) -> None:
    job_id = await api.submit()
    assert (await retry(api, job_id, 409))["code"] == "job_not_final"
    await catch_up(api)
    await api.event(job_id, EventKind.STARTED, attempt=1)
    assert (await retry(api, job_id, 409))["code"] == "job_not_final"
    await api.succeed(job_id)
    assert (await retry(api, job_id, 409))["code"] == "job_succeeded"
    assert len(api.published) == 1


async def test_a_large_input_is_copied_for_the_new_job(api: Api) -> None:
    value = "x" * (2 * INLINE_LIMIT_BYTES)
    new = (await retry(api, await failed(api, value=value)))["id"]
    request = decode_request(api.published[-1])
    assert request.input.blob is not None
    assert request.input.blob.name.startswith(f"{TENANT}/{new}/")
    assert await api.blobs.get(request.input.blob) == value.encode()


async def test_without_its_input_a_job_is_not_retried(api: Api) -> None:
    gone_blob = await failed(api, value="x" * (2 * INLINE_LIMIT_BYTES))
    blob = decode_request(api.published[0]).input.blob
    assert blob is not None
    await api.blobs.delete_job(TENANT, gone_blob)
    old = await api.submit()
    await api.project(decode(api.published[-1]))  # from before places were kept
    await api.event(old, EventKind.CANCELED)
    moved = await api.submit()
    await api.project(decode(api.published[-1], "0"))  # another job's request stands there
    await api.event(moved, EventKind.CANCELED)
    for job_id in (gone_blob, old, moved):
        assert (await retry(api, job_id, 410))["code"] == "input_gone"
    assert len(api.published) == 3


async def test_the_line_of_a_batch_is_retried_as_a_job_of_its_own(api: Api) -> None:
    await api.submit()
    line = BatchLine(batch_id="b", number=3)
    old = api.mint.issue(TENANT, api.clock.now + 1)
    api.log.append([encode_request(replace(decode_request(api.published[0]), job_id=old, line=line))])
    await fail(api, old)
    await retry(api, old)
    assert decode_request(api.published[-1]).line is None


async def test_a_model_that_is_gone_is_said_to_be_unknown(make_api: MakeApi) -> None:
    api = make_api()
    old = await failed(api)
    without = {name: versions for name, versions in CATALOG.specs.items() if name != "sentiment"}
    other = make_api(catalog=Catalog(specs=without, problems={}, untrusted=frozenset()))
    other.log.append(api.published)
    await fail(other, old)
    assert (await retry(other, old, 404))["known"] == ["echo", "photo"]


async def test_another_tenants_job_is_unknown(api: Api) -> None:
    answer = await api.http.post(f"/v1/jobs/{api.mint.issue('rival', api.clock.now)}/retry")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


async def test_it_takes_nothing_in_its_query(api: Api) -> None:
    answer = await api.http.post(f"/v1/jobs/{await failed(api)}/retry", params={"lane": "low"})
    assert answer.status_code == 422


async def test_when_nobody_knows_whether_it_was_written_the_next_copy_writes_the_same(api: Api) -> None:
    old = await failed(api)
    sound, lost = api.queue.publish, True

    async def publish(channel: Channel, messages: list[Message]) -> None:
        nonlocal lost
        await sound(channel, messages)
        if lost:
            lost = False
            raise OutcomeUnknown("no answer", job_id=messages[0].job_id)

    api.queue.publish = publish  # type: ignore[method-assign,assignment]  # for this test
    unknown = await retry(api, old, 503)
    assert unknown["code"] == "outcome_unknown"
    assert (await retry(api, old))["id"] == unknown["job_id"]
    assert api.published[-1] == api.published[-2]


async def test_while_the_log_is_away_it_is_a_503(make_api: MakeApi) -> None:
    class Away(MemoryEventLog):
        async def at(self, places: object) -> list[Message | None]:
            raise Unavailable("the log is away")

    api = make_api(events=Away(MemoryLog()))
    old = await failed(api)
    assert (await retry(api, old, 503))["code"] == "unavailable"
