"""Each role in processes of its own, several of each, on Kafka and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.scenario.conftest import Client, StartRoles, until

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]


def test_several_of_each_role_answer_every_job_once(roles_on_kafka: StartRoles, client_of: ClientOf) -> None:
    roles = roles_on_kafka("echo")
    for role in ("worker", "worker", "projector", "projector", "scheduler"):
        roles.spawn(role)
    one, two = client_of(roles.start("api")), client_of(roles.start("api"))
    jobs = {one.submit("echo", {"n": n}, lane=lane): n for n in range(60) for lane in ("high", "normal", "low")}
    for job_id, n in jobs.items():
        final = two.final(job_id)
        assert (final["status"], final["output"], final["attempts"]) == ("succeeded", {"n": n}, 1)
        assert final["durability"] == "process"


def test_the_api_tells_of_workers_in_other_processes(roles_on_kafka: StartRoles, client_of: ClientOf) -> None:
    roles = roles_on_kafka("echo")
    api = client_of(roles.start("api", "projector"))
    roles.start("worker")

    def told() -> list[str]:
        models = api.http.get("/v1/models").json()["models"]
        return [one["status"] for one in models if one["name"] == "echo"]

    until(lambda: told() == ["ready"], "the API has heard of the worker")


def test_a_large_input_and_a_large_output_travel_by_the_blob_store(
    roles_on_kafka: StartRoles, client_of: ClientOf
) -> None:
    roles = roles_on_kafka("echo")
    api = client_of(roles.start("api", "projector"))
    roles.start("worker")
    large = "x" * 2_000_000
    job_id = api.submit("echo", {"text": large})
    assert api.final(job_id)["output"] == {"text": large}


def test_the_whole_service_in_one_process_works_on_kafka_with_its_own_store(
    roles_on_kafka: StartRoles, client_of: ClientOf
) -> None:
    roles = roles_on_kafka("echo", store="sqlite://")
    up = client_of(roles.start("api", "worker", "projector", "scheduler"))
    jobs = [up.submit("echo", n) for n in range(20)]
    assert [up.final(job_id)["output"] for job_id in jobs] == list(range(20))
