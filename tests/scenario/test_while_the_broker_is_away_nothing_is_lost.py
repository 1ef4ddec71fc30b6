"""A broker that is away makes submitting fail in time, and everybody goes on by themselves once it is back."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from tests.scenario.conftest import Client, StartRoles, until

from dev.kafka.broker import Broker
from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]


def try_to_submit(api: Client, n: int) -> httpx2.Response:
    return api.http.post("/v1/jobs", json={"model": "echo", "input": n})


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("leave", [Broker.kill, Broker.stop])
def test_submits_are_answered_503_and_workers_resume(
    roles_on_kafka: StartRoles, client_of: ClientOf, kafka: Broker, leave: Callable[[Broker], None]
) -> None:
    roles = roles_on_kafka("echo")
    api = client_of(roles.start("api"))
    for role in ("worker", "projector", "scheduler"):
        roles.start(role)
    accepted = {api.submit("echo", n): n for n in range(20)}

    leave(kafka)
    unknown: dict[str, int] = {}
    for n in range(100, 105):
        answer = try_to_submit(api, n)
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1
        if answer.json()["code"] == "outcome_unknown":
            unknown[answer.json()["job_id"]] = n

    kafka.start()
    back: list[httpx2.Response] = []

    def taken() -> bool:
        back.append(try_to_submit(api, 200))
        return back[-1].status_code == 202

    until(taken, "jobs are taken again")
    accepted[back[-1].json()["id"]] = 200
    for job_id, n in accepted.items():
        assert api.final(job_id)["output"] == n
    known = {job["id"] for job in api.http.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]}
    for job_id, n in unknown.items():  # of the others nobody will ever hear
        assert job_id not in known or api.final(job_id)["output"] == n
