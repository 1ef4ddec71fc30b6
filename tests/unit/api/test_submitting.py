"""What is accepted, what is published for it, and what the caller is told."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.api.conftest import INLINE_LIMIT_BYTES, NOW, Api

from forebay.adapters.memory import MemoryBlobs, MemoryLog, MemoryQueue
from forebay.core import crash
from forebay.core.message import Channel
from forebay.core.payload import JSON, TEXT, Payload
from forebay.core.wire import decode_request
from forebay.ports.queue import Durability, QueueFeatures

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR42mO4I6KBFTEMLQkAQ7VFQQTNPpcAAAAASUVORK5CYII="
)


async def test_a_submission_is_answered_202_with_the_job_object(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "sentiment", "input": "good"})
    job_id = api.accepted().job_id
    assert answer.status_code == 202
    assert answer.json() == {
        "id": job_id,
        "model": "sentiment",
        "status": "queued",
        "lane": "normal",
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


async def test_the_202_says_where_to_look_and_when(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "sentiment", "input": "good"})
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["vary"] == "Prefer"
    assert "preference-applied" not in answer.headers


async def test_everything_that_was_said_travels_with_the_job(api: Api) -> None:
    await api.submit(
        "echo",
        {"b": [1, 2.5], "a": None},
        version="2",
        lane="high",
        parameters={"n": 3},
        metadata={"order": "A-7"},
        start_within_s=60,
        run_timeout_s=1.5,
    )
    request = api.accepted()
    assert request.version == "2"
    assert request.lane == "high"
    assert request.parameters == {"n": 3}
    assert request.metadata == {"order": "A-7"}
    assert (request.start_within_s, request.run_timeout_s) == (60.0, 1.5)
    assert request.input == Payload(media_type=JSON, data=b'{"a":null,"b":[1,2.5]}')


async def test_metadata_and_version_are_told_back(api: Api) -> None:
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1, "version": "1", "metadata": {"k": "v"}})
    assert answer.json()["metadata"] == {"k": "v"}
    assert answer.json()["version"] == "1"


@pytest.mark.parametrize("lane", ["high", "normal", "low"])
async def test_a_job_waits_in_the_lane_of_its_model(api: Api, lane: str) -> None:
    await api.submit(lane=lane)
    assert await api.queue.depth(Channel("sentiment", lane)) == 1


async def test_accepting_is_one_write_to_the_queue_and_none_to_the_store(api: Api) -> None:
    job_id = await api.submit()
    assert len(api.published) == 1
    assert await api.store.get("default", job_id) is None


async def test_the_time_of_acceptance_is_that_of_the_id(api: Api) -> None:
    job_id = await api.submit()
    assert api.accepted().accepted_at == api.mint.issued_at("default", job_id) == int(NOW * 1000) / 1000


async def test_the_simple_door_takes_model_name_and_data(api: Api) -> None:
    answer = await api.http.post("/inference", json={"model_name": "sentiment", "data": "good"})
    assert answer.status_code == 202
    request = api.accepted()
    assert answer.json()["request_id"] == answer.json()["id"] == request.job_id
    assert answer.json()["status"] == "queued"
    assert answer.headers["location"] == f"/status/{request.job_id}"
    assert request.input == Payload(media_type=TEXT, data=b"good")


@pytest.mark.parametrize(
    ("model", "body", "media_type", "stored"),
    [
        ("sentiment", b"good", "text/plain", TEXT),
        ("sentiment", "schön".encode(), "Text/Plain; charset=UTF-8", TEXT),
        ("photo", PNG, "image/png", "image/png"),
        ("echo", b'{"a": 1}', "application/json", JSON),
    ],
)
async def test_a_raw_body_is_an_input(api: Api, model: str, body: bytes, media_type: str, stored: str) -> None:
    answer = await api.http.post(f"/v1/models/{model}/jobs", content=body, headers={"content-type": media_type})
    assert answer.status_code == 202, answer.text
    assert api.accepted().input.media_type == stored
    if stored != JSON:
        assert api.accepted().input.data == body


async def test_a_base64_image_is_stored_as_its_bytes(api: Api) -> None:
    await api.submit("photo", base64.b64encode(PNG).decode())
    assert api.accepted().input == Payload(media_type="image/png", data=PNG)


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", {}),
        ("n=3", {"n": 3}),
        ("x=0.5", {"x": 0.5}),
        ("on=true&off=false&none=null", {"on": True, "off": False, "none": None}),
        ("word=three", {"word": "three"}),
        ("list=[1,2]", {"list": [1, 2]}),
        ("n=1&n=2", {"n": 2}),
        ("word=%7Bbroken", {"word": "{broken"}),
    ],
)
async def test_query_parameters_are_read_as_their_types(api: Api, query: str, parameters: Any) -> None:
    headers = {"content-type": "text/plain"}
    answer = await api.http.post(f"/v1/models/echo/jobs?{query}", content=b"x", headers=headers)
    assert answer.status_code == 202, answer.text
    assert api.accepted().parameters == parameters


async def test_the_query_of_a_raw_body_says_lane_version_and_times(api: Api) -> None:
    answer = await api.http.post(
        "/v1/models/echo/jobs?lane=low&version=2&start_within_s=5&run_timeout_s=2&n=1",
        content=b"x",
        headers={"content-type": "text/plain"},
    )
    assert answer.status_code == 202
    request = api.accepted()
    assert (request.lane, request.version, request.start_within_s, request.run_timeout_s) == ("low", "2", 5.0, 2.0)
    assert request.parameters == {"n": 1}


@pytest.mark.parametrize(("size", "inline"), [(INLINE_LIMIT_BYTES, True), (INLINE_LIMIT_BYTES + 1, False)])
async def test_an_input_over_the_inline_limit_goes_to_the_blob_store(api: Api, size: int, inline: bool) -> None:
    job_id = await api.submit(value="x" * size)
    payload = api.accepted().input
    assert payload.size_bytes == size
    assert (payload.blob is None) is inline
    assert all(name.startswith(f"default/{job_id}/") for name in api.blobs.blobs)
    assert len(api.blobs.blobs) == (0 if inline else 1)
    assert api.published[0].value == (b"x" * size if inline else b"")


async def test_the_blob_is_stored_before_the_job_that_names_it(make_api: Any) -> None:
    order: list[str] = []

    class Blobs(MemoryBlobs):
        async def put(self, tenant: str, job_id: str, data: bytes) -> Any:
            order.append("blob")
            return await super().put(tenant, job_id, data)

    api: Api = make_api(blobs=Blobs())
    crash.arm(order.append)
    try:
        await api.submit(value="x" * 2000)
    finally:
        crash.arm(None)
    assert order == ["blob", "api.before_publish", "api.after_publish"]


async def test_the_crash_points_stand_around_the_publish(make_api: Any) -> None:
    seen: list[tuple[str, int]] = []
    api: Api = make_api()
    crash.arm(lambda name: seen.append((name, len(api.published))))
    try:
        await api.submit()
    finally:
        crash.arm(None)
    assert seen == [("api.before_publish", 0), ("api.after_publish", 1)]


async def test_accepted_jobs_are_counted_with_their_size(api: Api) -> None:
    await api.submit(value="1234567", lane="low")
    assert api.counted("forebay_jobs_submitted_total", model="sentiment", lane="low") == 1
    assert api.counted("forebay_input_size_bytes_sum", model="sentiment") == 7


async def test_any_json_media_type_is_json(api: Api) -> None:
    body = b'{"model":"echo","input":1}'
    for media_type in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.acme+json"):
        answer = await api.http.post("/v1/jobs", content=body, headers={"content-type": media_type})
        assert answer.status_code == 202


async def test_a_queue_of_another_class_is_told_in_the_job(make_api: Any) -> None:
    class Flushed(MemoryQueue):
        @property
        def features(self) -> Any:
            return QueueFeatures(survives_restart=True, durability=Durability.FLUSHED)

    api: Api = make_api(queue=Flushed(MemoryLog()))
    answer = await api.http.post("/v1/jobs", json={"model": "echo", "input": 1})
    assert answer.json()["durability"] == "flushed"


async def test_a_job_keeps_the_class_of_the_queue_that_took_it(make_api: Callable[..., Api]) -> None:
    """As after a start with another `synchronous`."""
    api = make_api()
    job_id = await api.submit()
    (message,) = api.published
    await api.project(replace(decode_request(message), durability="flushed"))
    await api.succeed(job_id)
    assert (await api.http.get(f"/v1/jobs/{job_id}")).json()["durability"] == "flushed"
    assert (await api.http.get("/v1/jobs")).json()["jobs"][0]["durability"] == "flushed"


async def test_a_request_carries_the_class_of_its_queue(api: Api) -> None:
    await api.submit()
    assert api.accepted().durability == "memory"
