"""After an acknowledged cancel no result appears, and nobody works for it in vain; on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.scenario.conftest import Begin, Client, Start, StartRoles, until

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]


def cancel(api: Client, job_id: str) -> Any:
    answer = api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_one_that_hangs_is_stopped_and_the_next_one_runs(begin: Begin, client_of: ClientOf) -> None:
    api = client_of(begin("troublesome"))
    stuck = api.submit("troublesome", {"harm": "hang"})
    until(lambda: api.job(stuck)["status"] == "running", "it runs")
    waiting = api.submit("troublesome", {"harm": "none"})
    assert cancel(api, stuck)["status"] == "canceled"
    assert api.final(waiting)["status"] == "succeeded"  # behind it, on the only runner
    assert cancel(api, stuck)["attempts"] == 1
    assert api.http.get(f"/v1/jobs/{stuck}/result").json()["code"] == "job_canceled"


def test_one_that_waits_for_its_retry_is_canceled_at_once(begin: Begin, client_of: ClientOf) -> None:
    api = client_of(begin("flaky"))
    job_id = api.submit("flaky", {"fail": 99})
    until(lambda: (api.job(job_id)["attempts"], api.job(job_id)["status"]) == (1, "queued"), "it waits for its retry")
    final = cancel(api, job_id)
    assert (final["status"], final["attempts"]) == ("canceled", 1)


def test_one_that_has_succeeded_stays_so(begin: Begin, client_of: ClientOf) -> None:
    api = client_of(begin("echo"))
    job_id = api.submit("echo", 1)
    done = api.final(job_id)
    del done["output"]
    assert cancel(api, job_id) == done


def test_one_that_was_canceled_while_no_worker_ran_never_starts(
    roles_on_kafka: StartRoles, client_of: ClientOf
) -> None:
    roles = roles_on_kafka("echo")
    api = client_of(roles.start("api", "projector"))
    canceled, wanted = api.submit("echo", 1), api.submit("echo", 2)
    assert cancel(api, canceled)["status"] == "canceled"
    roles.start("worker")
    assert api.final(wanted)["status"] == "succeeded"
    assert "started_at" not in api.job(canceled)


def test_one_that_was_canceled_before_a_kill_does_not_run_after_the_restart(start: Start, client_of: ClientOf) -> None:
    service = start("troublesome")
    api = client_of(service)
    stuck = api.submit("troublesome", {"harm": "hang"})
    until(lambda: api.job(stuck)["status"] == "running", "the only runner is busy")
    waiting = api.submit("troublesome", {"harm": "none"})
    assert cancel(api, waiting)["status"] == "canceled"
    service.kill()
    service.start()
    again = client_of(service)
    assert "started_at" not in again.job(waiting)
    assert cancel(again, stuck)["status"] == "canceled"
    assert again.final(again.submit("troublesome", {"harm": "none"}))["status"] == "succeeded"
    assert "started_at" not in again.job(waiting)
