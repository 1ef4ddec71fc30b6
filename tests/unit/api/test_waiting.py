"""Long polls and `Prefer: wait`."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from tests.unit.api.conftest import Api
from tests.unit.api.test_edge import JSON_TYPE, ask

from forebay.core.errors import Unavailable
from forebay.core.event import EventKind

BODY = {"model": "sentiment", "input": "good"}


@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/jobs/{}/result", "/status/{}", "/result/{}"])
async def test_a_final_job_is_answered_without_waiting(api: Api, path: str) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id)
    answer = await api.http.get(path.format(job_id), params={"wait": 60})
    assert answer.status_code == 200
    assert api.store.waited == []


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/jobs/{}", 200), ("/v1/jobs/{}/result", 202), ("/status/{}", 200), ("/result/{}", 202)]
)
async def test_a_wait_ends_after_its_time_with_the_job_as_it_is(api: Api, path: str, status: int) -> None:
    job_id = await api.submit()
    answer = await api.http.get(path.format(job_id), params={"wait": 3})
    assert answer.status_code == status
    assert answer.json()["status"] == "queued"
    assert sum(api.store.waited) == pytest.approx(3)


async def test_a_wait_ends_as_soon_as_the_job_is_final(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    api.store.during = lambda: api.succeed(job_id)
    answer = await api.http.get(f"/v1/jobs/{job_id}", params={"wait": 60})
    assert answer.json()["status"] == "succeeded"
    assert len(api.store.waited) == 1


async def test_running_is_not_worth_an_answer(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    api.store.during = lambda: api.event(job_id, EventKind.STARTED, attempt=1)
    answer = await api.http.get(f"/v1/jobs/{job_id}", params={"wait": 2})
    assert answer.json()["status"] == "running"
    assert sum(api.store.waited) == pytest.approx(2)


async def test_the_store_is_read_again_each_second_since_a_hint_may_be_lost(api: Api) -> None:
    job_id = await api.submit()
    await api.http.get(f"/v1/jobs/{job_id}", params={"wait": 5})
    assert all(waited <= 1.0 for waited in api.store.waited)


async def test_no_wait_is_no_subscription(api: Api) -> None:
    job_id = await api.submit()
    await api.http.get(f"/v1/jobs/{job_id}", params={"wait": 0})
    assert api.store.waited == []


@pytest.mark.parametrize("wait", ["61", "-1", "1.5", "soon", "", "9" * 5000, "²"])
async def test_a_wait_that_cannot_be_is_422(api: Api, wait: str) -> None:
    job_id = await api.submit()
    answer = await api.http.get(f"/v1/jobs/{job_id}", params={"wait": wait})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "wait"


async def test_an_unknown_id_is_404_at_once(api: Api) -> None:
    answer = await api.http.get("/v1/jobs/nope", params={"wait": 60})
    assert answer.status_code == 404
    assert api.store.waited == []


async def test_a_stop_of_the_service_ends_waits_within_a_second(api: Api) -> None:
    job_id = await api.submit()
    api.store.during = api.draining.set
    answer = await api.http.get(f"/v1/jobs/{job_id}", params={"wait": 60})
    assert answer.status_code == 200
    assert sum(api.store.waited) <= 1.0


async def test_a_caller_who_hung_up_is_not_waited_for(api: Api) -> None:
    body = b'{"model":"sentiment","input":"good"}'
    asked = await ask(api, "POST", "/v1/jobs", [JSON_TYPE, (b"prefer", b"wait=60")], [body], then_leave=True)
    assert asked.status == 202
    assert sum(api.store.waited) <= 1.0
    assert len(api.published) == 1, "what was accepted stays accepted"


@pytest.mark.parametrize("path", ["/v1/jobs", "/inference"])
async def test_prefer_wait_answers_200_when_the_job_is_final_in_time(api: Api, path: str) -> None:
    async def finish() -> None:
        await api.project_published()
        await api.succeed(api.accepted().job_id)

    api.store.during = finish
    body = BODY if path == "/v1/jobs" else {"model_name": "sentiment", "data": "good"}
    answer = await api.http.post(path, json=body, headers={"prefer": "wait=10"})
    assert answer.status_code == 200
    assert answer.json()["output"] == [{"label": "POSITIVE", "score": 0.9}]
    assert ("request_id" in answer.json()) is (path == "/inference")
    assert answer.headers["preference-applied"] == "wait=10"
    assert "retry-after" not in answer.headers
    assert answer.headers["location"]


async def test_prefer_wait_answers_a_failed_job_with_200_too(api: Api) -> None:
    async def fail() -> None:
        await api.project_published()
        await api.event(api.accepted().job_id, EventKind.FAILED, attempt=1)

    api.store.during = fail
    answer = await api.http.post("/v1/jobs", json=BODY, headers={"prefer": "wait=10"})
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")


@pytest.mark.parametrize(
    ("prefer", "applied", "waited_s"),
    [
        ("wait=2", "wait=2", 2),
        ("respond-async, wait=2", "respond-async, wait=2", 2),
        ("respond-async", "respond-async", 0),
        ("wait=600", "wait=60", 60),
        ("wait=0", "wait=0", 0),
        ("wait=x", None, 0),
        ("handling=lenient", None, 0),
    ],
)
async def test_prefer_falls_back_to_202_and_says_what_was_applied(
    api: Api, prefer: str, applied: str | None, waited_s: float
) -> None:
    answer = await api.http.post("/v1/jobs", json=BODY, headers={"prefer": prefer})
    assert answer.status_code == 202
    assert answer.headers.get("preference-applied") == applied
    assert answer.headers["retry-after"] == "1"
    assert sum(api.store.waited) == pytest.approx(waited_s)


async def test_the_raw_door_honours_prefer(api: Api) -> None:
    headers = {"content-type": "text/plain", "prefer": "wait=1"}
    answer = await api.http.post("/v1/models/sentiment/jobs", content=b"good", headers=headers)
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"


async def test_repeated_prefer_headers_are_one(api: Api) -> None:
    headers: Any = [("prefer", "respond-async"), ("prefer", "wait=1")]
    answer = await api.http.post("/v1/jobs", json=BODY, headers=headers)
    assert answer.headers["preference-applied"] == "respond-async, wait=1"


async def test_a_store_that_is_away_hides_no_acceptance(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(tenant: str, job_id: str) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(api.store, "get", away)
    with structlog.testing.capture_logs() as logged:
        answer = await api.http.post("/v1/jobs", json=BODY, headers={"prefer": "wait=5"})
    assert answer.status_code == 202
    assert answer.json()["id"] == api.accepted().job_id
    assert logged[0]["event"] == "wait.failed"


async def test_a_store_that_is_away_is_503_to_a_reader(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = await api.submit()

    async def away(tenant: str, job_id: str) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(api.store, "get", away)
    answer = await api.http.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
