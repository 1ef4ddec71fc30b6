"""Deleting: a job that has ended is gone for everybody, and nobody can tell it from one that time has ended."""

from __future__ import annotations

import json

import pytest
from tests.unit.api.conftest import TENANT, Api

from forebay.api.batch_object import write_line
from forebay.core.event import BatchLine, EventKind, JobEvent
from forebay.core.job import Job, JobStatus
from forebay.core.payload import JSON, Payload
from forebay.core.wire import decode, decode_event
from forebay.testing.samples import job_id as sample_id


def deleted_events(api: Api) -> list[JobEvent]:
    return [decode_event(one) for one in api.published if one.headers["ce_type"] == "io.forebay.job.deleted.v1"]


async def projecting(api: Api) -> None:
    """The projector's part, while somebody waits."""
    await api.project(*map(decode, api.published))


async def finished(api: Api, **fields: object) -> str:
    job_id = await api.submit(**fields)  # type: ignore[arg-type]  # fields of a job
    await api.project_published()
    await api.succeed(job_id)
    return job_id


async def test_a_job_that_has_ended_is_gone_at_every_door(api: Api) -> None:
    job_id = await finished(api)
    api.store.during = lambda: projecting(api)
    assert (await api.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
    [event] = deleted_events(api)
    assert (event.tenant, event.job_id, event.not_before) == (TENANT, job_id, None)
    for path in ("", "/result", "/events", "?wait=1"):
        answer = await api.http.get(f"/v1/jobs/{job_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (410, "job_gone"), path
    for path in ("status", "result"):
        answer = await api.http.get(f"/{path}/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (410, "job_gone"), path
    assert (await api.http.post(f"/v1/jobs/{job_id}/cancel")).status_code == 410
    assert (await api.http.get("/v1/jobs")).json()["jobs"] == []


async def test_deleting_again_is_harmless(api: Api) -> None:
    job_id = await finished(api)
    api.store.during = lambda: projecting(api)
    assert [(await api.http.delete(f"/v1/jobs/{job_id}")).status_code for _ in range(2)] == [204, 204]
    assert len(deleted_events(api)) == 1


@pytest.mark.parametrize("begun", [False, True])
async def test_a_job_that_has_not_ended_is_not_deleted(api: Api, begun: bool) -> None:
    job_id = await api.submit()
    await api.project_published()
    if begun:
        await api.event(job_id, EventKind.STARTED, attempt=1)
    answer = await api.http.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_final")
    assert "cancel it first" in answer.json()["detail"]
    assert deleted_events(api) == []


async def test_while_the_store_is_behind_it_will_be_gone(api: Api) -> None:
    answer = await api.http.delete(f"/v1/jobs/{await finished(api)}")
    assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")


@pytest.mark.parametrize("whose", ["nobody's", "another tenant's"])
async def test_an_id_that_is_none_of_theirs_is_unknown(api: Api, whose: str) -> None:
    job_id = api.mint.issue("somebody else", api.clock.now) if whose == "another tenant's" else sample_id(1)
    answer = await api.http.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")
    assert api.published == []


async def test_whoever_waits_for_a_job_that_is_deleted_is_told(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()

    async def deleted() -> None:
        await api.event(job_id, EventKind.CANCELED)
        await api.event(job_id, EventKind.DELETED)

    api.store.during = deleted
    assert (await api.http.get(f"/v1/jobs/{job_id}?wait=5")).status_code == 410


async def test_an_output_that_goes_while_it_is_fetched_is_gone_and_not_damaged(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    blob = await api.blobs.put(TENANT, job_id, b'"large"')
    await api.succeed(job_id, payload=Payload(media_type=JSON, blob=blob))

    sound = api.blobs.get

    async def get(ref: object) -> bytes:
        await api.event(job_id, EventKind.DELETED)
        api.blobs.blobs.clear()
        return await sound(blob)

    api.blobs.get = get  # type: ignore[method-assign]  # of this one store
    assert (await api.http.get(f"/v1/jobs/{job_id}/result")).status_code == 410


async def test_a_jobs_clocks_are_in_its_request(api: Api) -> None:
    await api.submit(start_within_s=5, retain_s=120)
    request = api.accepted()
    assert (request.start_within_s, request.retain_s, request.max_life_s) == (5.0, 120.0, 86_400.0)
    await api.submit()
    request = decode(api.published[-1])  # type: ignore[assignment]  # it is one
    assert (request.start_within_s, request.retain_s, request.max_life_s) == (None, 86_400.0, 86_400.0)


def test_a_batch_shows_the_line_of_a_deleted_job_as_gone() -> None:
    line = BatchLine(batch_id="b", number=3, custom_id="row")
    tombstone = Job(tenant=TENANT, id="j", status=JobStatus.SUCCEEDED, finished_at=1.0, line=line, deleted_at=2.0)
    shown = json.loads(write_line(tombstone))
    assert (shown["line"], shown["custom_id"], shown["status"]) == (3, "row", "succeeded")
    assert shown["error"]["code"] == "job_gone"
    assert "output" not in shown
