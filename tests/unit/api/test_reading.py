"""What a caller sees of a job, from the moment of acceptance to its end."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.api.conftest import NOW, TENANT, Api

from forebay.core.event import EventKind, JobError, JobMetrics
from forebay.core.payload import JSON, TEXT, BlobRef, Payload

FAILED = JobError(code="model_failed", message="the photo is empty", retryable=False)
DOORS = ("/v1/jobs/{}", "/status/{}")


@pytest.mark.parametrize("door", DOORS)
async def test_a_job_is_queued_right_after_its_202(api: Api, door: str) -> None:
    job_id = await api.submit()
    answer = await api.http.get(door.format(job_id))
    assert answer.status_code == 200
    expected = {
        "id": job_id,
        "status": "queued",
        "attempts": 0,
        "created_at": "2025-11-24T16:00:00.123000Z",
        "durability": "memory",
        "urls": {
            "self": f"/v1/jobs/{job_id}",
            "result": f"/v1/jobs/{job_id}/result",
            "events": f"/v1/jobs/{job_id}/events",
            "cancel": f"/v1/jobs/{job_id}/cancel",
        },
    }
    assert answer.json() == expected | ({"request_id": job_id} if door.startswith("/status") else {})


async def test_what_the_202_said_stays_true_once_projected(api: Api) -> None:
    first = (await api.http.post("/v1/jobs", json={"model": "echo", "input": 1, "metadata": {"a": 1}})).json()
    await api.project_published()
    assert (await api.http.get(first["urls"]["self"])).json() == first


@pytest.mark.parametrize(
    ("age_s", "lag_s", "status"), [(59.9, 0, 200), (60.0, 0, 404), (600.0, 601.0, 200), (600.0, 600.0, 404)]
)
async def test_an_id_without_a_row_is_queued_while_young_or_while_the_projector_lags(
    api: Api, age_s: float, lag_s: float, status: int
) -> None:
    job_id = await api.submit()
    api.clock.now = (api.mint.issued_at(TENANT, job_id) or 0) + age_s
    api.lag_s = lag_s
    assert (await api.http.get(f"/v1/jobs/{job_id}")).status_code == status


async def test_a_row_is_shown_however_old_it_is(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    api.clock.now += 1e6
    assert (await api.http.get(f"/v1/jobs/{job_id}")).status_code == 200


def ids_that_are_none_of_theirs(api: Api) -> list[str]:
    own = api.mint.issue(TENANT, NOW)
    foreign = api.mint.issue("another", NOW)
    near = [own[:-1], own[:-1] + "g", own + "0", own.upper(), own.replace("-", "_")]
    return ["x", "%20", "é" * 53, "0" * 9999, foreign, *near]


async def test_a_foreign_id_a_garbled_one_and_an_old_one_are_the_same_404(api: Api) -> None:
    old = api.mint.issue(TENANT, NOW - 3600)
    for path in ("/v1/jobs/{}", "/v1/jobs/{}/result", "/status/{}", "/result/{}"):
        for job_id in [*ids_that_are_none_of_theirs(api), old]:
            answer = await api.http.get(path.format(job_id))
            assert answer.status_code == 404
            problem = answer.json()
            assert {key: problem[key] for key in ("title", "status", "code")} == {
                "title": "Not Found",
                "status": 404,
                "code": "unknown_job",
            }
            assert problem["detail"].startswith("no job has the id ")
            assert "known" not in problem


async def test_a_job_of_another_producers_record_is_found_once_it_has_a_row(api: Api) -> None:
    job_id = "0f0e0d0c-0b0a-8908-8706-050403020100-0123456789abcdef"
    assert (await api.http.get(f"/v1/jobs/{job_id}")).status_code == 404
    await api.submit()
    await api.project(replace(api.accepted(), job_id=job_id))
    assert (await api.http.get(f"/v1/jobs/{job_id}")).json()["id"] == job_id
    await api.project(replace(api.accepted(), tenant="another", job_id=job_id.replace("0f0e", "1f1e")))
    assert (await api.http.get(f"/v1/jobs/{job_id.replace('0f0e', '1f1e')}")).status_code == 404


async def test_another_tenants_job_is_unknown(api: Api) -> None:
    job_id = api.mint.issue("another", NOW)
    await api.submit()
    request = api.accepted()
    await api.project(replace(request, tenant="another", job_id=job_id))
    assert (await api.http.get(f"/v1/jobs/{job_id}")).status_code == 404


async def test_a_running_job_shows_its_attempt_and_when_it_started(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=2, model_version="1", at=NOW + 1)
    job = (await api.http.get(f"/v1/jobs/{job_id}")).json()
    assert job["status"] == "running"
    assert job["attempts"] == 2
    assert job["version"] == "1"
    assert job["started_at"] == "2025-11-24T16:00:01.123456Z"
    assert "finished_at" not in job


async def test_a_succeeded_job_shows_everything(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=1, model_version="1", at=NOW + 1)
    metrics = JobMetrics(queue_s=1.0, predict_s=0.25, batch_size=4)
    await api.succeed(job_id, b'[{"label":"POSITIVE","score":0.90}]', metrics=metrics, at=NOW + 2)
    job = (await api.http.get(f"/v1/jobs/{job_id}")).json()
    assert list(job) == [
        "id",
        "model",
        "version",
        "status",
        "lane",
        "attempts",
        "created_at",
        "started_at",
        "finished_at",
        "metrics",
        "output",
        "durability",
        "urls",
    ]
    assert job["metrics"] == {"queue_s": 1.0, "predict_s": 0.25, "batch_size": 4}
    assert job["output"] == [{"label": "POSITIVE", "score": 0.9}]


async def test_the_stored_bytes_of_an_output_are_shown_as_they_are(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    stored = b'{"big": 123456789012345678901234567890, "score":0.90,  "nan_free": 1e-7}'
    await api.succeed(job_id, stored)
    assert stored in (await api.http.get(f"/v1/jobs/{job_id}")).content
    assert (await api.http.get(f"/v1/jobs/{job_id}/result")).content == stored


async def test_an_output_of_null_is_there(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id, b"null")
    assert (await api.http.get(f"/v1/jobs/{job_id}")).json()["output"] is None


async def test_an_output_in_the_blob_store_is_shown_like_any_other(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    ref = await api.blobs.put(TENANT, job_id, b'{"large":true}')
    await api.succeed(job_id, payload=Payload(media_type=JSON, blob=ref))
    assert (await api.http.get(f"/v1/jobs/{job_id}")).json()["output"] == {"large": True}
    answer = await api.http.get(f"/v1/jobs/{job_id}/result")
    assert (answer.content, answer.headers["content-type"]) == (b'{"large":true}', JSON)


async def test_an_output_that_is_not_json_is_at_the_result_address_only(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id, payload=Payload(media_type=TEXT, data=b"<b>hi</b>"))
    job = (await api.http.get(f"/v1/jobs/{job_id}")).json()
    assert "output" not in job
    answer = await api.http.get(job["urls"]["result"])
    assert (answer.content, answer.headers["content-type"]) == (b"<b>hi</b>", TEXT)
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_damaged_blob_is_our_fault_and_names_no_blob(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    ref = BlobRef(name="default/secret/x", size_bytes=1, sha256="0")
    await api.succeed(job_id, payload=Payload(media_type=JSON, blob=ref))
    answer = await api.http.get(f"/v1/jobs/{job_id}/result")
    assert answer.status_code == 500
    assert answer.json()["code"] == "blob_damaged"
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/v1/jobs/{}/result", "/result/{}"])
async def test_a_result_that_is_pending_is_202_with_the_job(api: Api, path: str) -> None:
    job_id = await api.submit()
    for _ in range(2):
        answer = await api.http.get(path.format(job_id))
        assert answer.status_code == 202
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["status"] == "queued"
        await api.project_published()


ENDS = [
    (EventKind.FAILED, {"attempt": 3, "error": FAILED}, "job_failed", "the photo is empty"),
    (EventKind.CANCELED, {}, "job_canceled", "The job is canceled."),
    (EventKind.EXPIRED, {}, "job_expired", "The job is expired."),
]


@pytest.mark.parametrize(("kind", "facts", "code", "words"), ENDS)
async def test_the_output_of_a_job_that_has_none_is_422(
    api: Api, kind: EventKind, facts: dict[str, Any], code: str, words: str
) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, kind, **facts)
    answer = await api.http.get(f"/v1/jobs/{job_id}/result")
    problem = answer.json()
    assert answer.status_code == 422
    assert (problem["code"], problem["detail"], problem["job_id"]) == (code, words, job_id)
    if kind is EventKind.FAILED:
        assert problem["error"] == {"code": "model_failed", "message": "the photo is empty", "retryable": False}


@pytest.mark.parametrize(("kind", "facts", "code", "words"), ENDS)
async def test_the_simple_door_gives_every_final_job_with_200(
    api: Api, kind: EventKind, facts: dict[str, Any], code: str, words: str
) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, kind, **facts)
    for path in (f"/result/{job_id}", f"/status/{job_id}", f"/v1/jobs/{job_id}"):
        answer = await api.http.get(path)
        assert answer.status_code == 200
        assert answer.json()["status"] == kind.value
        assert "output" not in answer.json()


async def test_the_simple_door_gives_a_result_with_its_output(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id, b'"POSITIVE"')
    answer = await api.http.get(f"/result/{job_id}")
    assert answer.status_code == 200
    assert answer.json()["request_id"] == job_id
    assert answer.json()["output"] == "POSITIVE"


async def test_a_final_job_stays_as_it_is(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id)
    first = await api.http.get(f"/v1/jobs/{job_id}")
    await api.event(job_id, EventKind.FAILED, attempt=2, error=FAILED)
    assert (await api.http.get(f"/v1/jobs/{job_id}")).content == first.content


async def _some(api: Api) -> list[str]:
    ids = []
    for model, value in (("sentiment", "a"), ("echo", 1), ("echo", 2)):
        ids.append(await api.submit(model, value))
        api.clock.now += 1
    await api.project_published()
    await api.succeed(ids[1])
    return ids


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("", [2, 1, 0]),
        ("?limit=1", [2]),
        ("?model=echo", [2, 1]),
        ("?status=succeeded", [1]),
        ("?model=sentiment&status=queued", [0]),
        ("?model=nobody", []),
    ],
)
async def test_jobs_are_listed_newest_first(api: Api, query: str, places: list[int]) -> None:
    ids = await _some(api)
    answer = await api.http.get(f"/v1/jobs{query}")
    assert answer.status_code == 200
    assert [job["id"] for job in answer.json()["jobs"]] == [ids[place] for place in places]
    assert all("output" not in job for job in answer.json()["jobs"])


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("status=no", "status"),
        ("page=2", "page"),
        ("created_after=yesterday", "created_after"),
        ("created_before=2026-11-28T18:00:00", "created_before"),
        ("cursor=x", "cursor"),
        ("cursor=WzEsMl0", "cursor"),
        ("cursor=" + "W" * 5000, "cursor"),
        ("metadata.=x", "metadata."),
        ("metadata=x", "metadata"),
    ],
)
async def test_a_wrong_filter_is_422(api: Api, query: str, parameter: str) -> None:
    answer = await api.http.get(f"/v1/jobs?{query}")
    assert answer.status_code == 422
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


async def test_pages_lead_to_each_other_until_the_end(api: Api) -> None:
    ids = []
    for _ in range(5):
        api.clock.now += 1
        ids.append(await api.submit())
    await api.project_published()
    found, query = [], "limit=2"
    for _ in range(3):
        page = (await api.http.get(f"/v1/jobs?{query}")).json()
        found.append([job["id"] for job in page["jobs"]])
        query = f"limit=2&cursor={page.get('next_cursor')}"
    assert found == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    assert "next_cursor" not in page


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("metadata.user=ann", [2, 0]),
        ("metadata.user=ann&metadata.n=1", [0]),
        ("metadata.n=1", [0]),
        ("metadata.n=%221%22", []),
        ("metadata.deep=%7B%22a%22:[true]%7D", [1]),
        ("metadata.user=nobody", []),
        ("metadata.none=", []),
        ("metadata.user=ann&limit=1", [2]),
    ],
)
async def test_jobs_are_listed_by_their_metadata(api: Api, query: str, places: list[int]) -> None:
    ids = []
    for metadata in ({"user": "ann", "n": 1}, {"user": "bob", "deep": {"a": [True]}}, {"user": "ann", "n": "2"}):
        api.clock.now += 1
        ids.append(await api.submit(metadata=metadata))
    await api.project_published()
    answer = await api.http.get(f"/v1/jobs?{query}")
    assert answer.status_code == 200, answer.text
    assert [job["id"] for job in answer.json()["jobs"]] == [ids[place] for place in places]


async def test_jobs_are_listed_by_the_time_of_their_acceptance(api: Api) -> None:
    ids, times = [], []
    for _ in range(3):
        api.clock.now += 1
        ids.append(await api.submit())
        times.append((await api.http.get(f"/v1/jobs/{ids[-1]}")).json()["created_at"])
    await api.project_published()

    async def listed(**filters: str) -> list[str]:
        return [job["id"] for job in (await api.http.get("/v1/jobs", params=filters)).json()["jobs"]]

    assert await listed(created_after=times[0]) == [ids[2], ids[1]]
    assert await listed(created_before=times[2]) == [ids[1], ids[0]]
    assert await listed(created_after=times[0], created_before=times[2]) == [ids[1]]
    assert await listed(created_after=times[0].replace("Z", "+00:00")) == [ids[2], ids[1]]


async def test_a_search_stops_when_its_time_is_over_and_says_where_to_go_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.listing.LOOK_AT_METADATA", 2)
    monkeypatch.setattr("forebay.api.reading.LOOK_FOR_S", 0.0)
    for number in range(5):
        api.clock.now += 1
        await api.submit(metadata={"n": number})
    await api.project_published()
    query, pages = "metadata.n=0", []
    for _ in range(3):
        page = (await api.http.get(f"/v1/jobs?{query}")).json()
        pages.append([job["metadata"]["n"] for job in page["jobs"]])
        query = f"metadata.n=0&cursor={page.get('next_cursor')}"
    assert pages == [[], [], [0]]


async def test_a_search_that_has_time_goes_on_by_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.api.listing.LOOK_AT_METADATA", 2)
    for number in range(5):
        api.clock.now += 1
        await api.submit(metadata={"n": number})
    await api.project_published()
    page = (await api.http.get("/v1/jobs?metadata.n=0")).json()
    assert [job["metadata"]["n"] for job in page["jobs"]] == [0]
    assert "next_cursor" not in page
