"""One Idempotency-Key names one job, whenever the API dies; on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from tests.scenario.conftest import Client, Start, StartRoles

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]
Begin = Callable[..., RunningService]
KEY = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
JOB = {"model": "echo", "input": {"n": 1}}


@pytest.fixture(params=["embedded", "kafka"])
def begin(request: pytest.FixtureRequest) -> Begin:
    """`begin(crash_at=...)`: every role, on this backend."""
    if request.param == "embedded":
        start: Start = request.getfixturevalue("start")
        return lambda **settings: start("echo", **settings)
    roles_on_kafka: StartRoles = request.getfixturevalue("roles_on_kafka")
    return lambda **settings: roles_on_kafka("echo").start("api", "worker", "projector", "scheduler", **settings)


def submit(api: Client, **changes: Any) -> httpx2.Response:
    return api.http.post("/v1/jobs", json={**JOB, **changes}, headers=KEY)


def test_copies_get_the_same_job_before_and_after_a_restart(begin: Begin, client_of: ClientOf) -> None:
    service = begin()
    api = client_of(service)
    first = submit(api)
    assert first.status_code == 202
    assert submit(api).json() == first.json()
    assert api.final(first.json()["id"])["output"] == {"n": 1}
    assert submit(api, input=2).status_code == 422
    service.kill()
    service.start()
    again = client_of(service)
    copy = submit(again)
    assert (copy.json()["id"], copy.headers["idempotency-replayed"]) == (first.json()["id"], "true")
    assert len(again.http.get("/v1/jobs").json()["jobs"]) == 1


@pytest.mark.parametrize("point", ["api.before_publish", "api.after_publish"])
def test_of_an_api_that_dies_on_the_way_the_copy_gets_the_one_job(
    begin: Begin, client_of: ClientOf, point: str
) -> None:
    service = begin(crash_at=f"{point}:1")
    with pytest.raises(httpx2.TransportError):
        submit(client_of(service))
    service.wait()
    service.without("crash_at")
    service.start()
    api = client_of(service)
    copy = submit(api)
    while copy.status_code == 409:  # until the lease of the dead has ended
        copy = submit(api)
    assert copy.status_code == 202, copy.text
    assert api.final(copy.json()["id"])["output"] == {"n": 1}
    assert [job["id"] for job in api.http.get("/v1/jobs").json()["jobs"]] == [copy.json()["id"]]


def test_a_job_under_a_uuid_is_there_by_it(begin: Begin, client_of: ClientOf) -> None:
    api = client_of(begin())
    path = "/v1/jobs/8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
    answers = [api.http.put(path, json=JOB) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert api.final(path.rpartition("/")[2])["output"] == {"n": 1}
    assert api.http.put(path, json={**JOB, "input": 2}).status_code == 422
    assert len(api.http.get("/v1/jobs").json()["jobs"]) == 1
