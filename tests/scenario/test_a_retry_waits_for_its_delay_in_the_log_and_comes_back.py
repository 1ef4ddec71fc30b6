"""On Kafka a delayed retry goes through a delay topic and the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.scenario.conftest import Client, StartRoles, until

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]


def put_off(job: Mapping[str, Any]) -> bool:
    return (job["attempts"], job["status"]) == (1, "queued")


def test_it_comes_back_with_its_attempts_though_workers_and_scheduler_were_killed(
    roles_on_kafka: StartRoles, client_of: ClientOf
) -> None:
    roles = roles_on_kafka("flaky")
    api = client_of(roles.start("api", "projector"))
    worker = roles.start("worker")
    job_id = api.submit("flaky", {"fail": 1})
    until(lambda: put_off(api.job(job_id)), "the first attempt has failed and the job waits")
    worker.kill()
    scheduler = roles.start("scheduler")
    scheduler.kill()
    roles.start("scheduler")
    roles.start("worker")
    final = api.final(job_id)
    assert (final["status"], final["attempts"]) == ("succeeded", 2)
