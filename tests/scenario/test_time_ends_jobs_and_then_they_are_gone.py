"""What time brings about: jobs expire though no worker looks at them, and what is retained no longer is gone with all
its bytes; on both backends, whoever is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenario.conftest import Client, Start, StartRoles, until

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]
Begin = Callable[[], RunningService]

SHORT = {"min_retain_s": "0.1", "inline_limit_bytes": "64"}
"""So that nobody waits for a minute, and so that inputs and outputs lie in the blob store."""

LARGE = {"harm": "none", "padding": "x" * 100}


@pytest.fixture(params=["embedded", "kafka"])
def begin(request: pytest.FixtureRequest) -> Begin:
    """Every role, on this backend; of Kafka in one process and PostgreSQL beside it."""
    if request.param == "embedded":
        start: Start = request.getfixturevalue("start")
        return lambda: start("troublesome", **SHORT)
    roles: StartRoles = request.getfixturevalue("roles_on_kafka")
    return lambda: roles("troublesome", **SHORT).start("api", "worker", "projector", "scheduler")


def blobs(folder: Path, job_id: str) -> list[Path]:
    return list((folder / "blobs" / "default" / job_id).glob("*"))


def is_gone(api: Client, job_id: str) -> bool:
    answer = api.http.get(f"/v1/jobs/{job_id}")
    return answer.status_code == 410 and answer.json()["code"] == "job_gone"


def test_jobs_expire_are_retained_and_are_deleted(begin: Begin, client_of: ClientOf, tmp_path: Path) -> None:
    api = client_of(begin())

    done = api.submit("troublesome", LARGE)
    assert api.final(done)["output"] == LARGE
    assert len(blobs(tmp_path, done)) == 1  # the input; the output is the same bytes
    short = api.submit("troublesome", LARGE, retain_s=0.2)
    until(lambda: is_gone(api, short), "it is retained no longer")
    until(lambda: blobs(tmp_path, short) == [], "its blobs are gone")
    for path in (f"/v1/jobs/{short}/result", f"/v1/jobs/{short}/events", f"/status/{short}", f"/result/{short}"):
        assert api.http.get(path).status_code == 410

    assert api.final(done)["output"] == LARGE
    assert [api.http.delete(f"/v1/jobs/{done}").status_code for _ in range(2)] == [204, 204]
    assert is_gone(api, done)
    until(lambda: blobs(tmp_path, done) == [], "its blobs are gone")
    assert api.http.get("/v1/jobs").json()["jobs"] == []

    stuck = api.submit("troublesome", {"harm": "hang"})
    until(lambda: api.job(stuck)["status"] == "running", "the only runner is busy")
    late = api.submit("troublesome", LARGE, start_within_s=0.5)
    expired = api.final(late)
    assert (expired["status"], expired["attempts"], "started_at" in expired) == ("expired", 0, False)
    answer = api.http.delete(f"/v1/jobs/{stuck}")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_not_final")
    assert api.http.post(f"/v1/jobs/{stuck}/cancel").json()["status"] == "canceled"
    assert api.final(api.submit("troublesome", {"harm": "none"}))["status"] == "succeeded"
    assert api.job(late) == expired


def test_a_death_in_the_midst_of_a_deletion_leaves_nothing_behind(
    start: Start, client_of: ClientOf, tmp_path: Path
) -> None:
    service = start("troublesome", crash_at="scheduler.blobs_deleted:1", **SHORT)
    api = client_of(service)
    short = api.submit("troublesome", LARGE, retain_s=0.2)
    kept = api.submit("troublesome", LARGE)
    until(lambda: service.gone, "it died when the blobs were deleted")
    service.without("crash_at")
    service.start()
    again = client_of(service)
    assert is_gone(again, short)
    assert again.final(kept)["output"] == LARGE
    assert blobs(tmp_path, short) == []
    service.stop()


def test_a_scheduler_that_dies_leaves_its_work_to_the_next(
    roles_on_kafka: StartRoles, client_of: ClientOf, tmp_path: Path
) -> None:
    roles = roles_on_kafka("troublesome", **SHORT)
    api = client_of(roles.start("api", "worker", "projector"))
    short = api.submit("troublesome", LARGE, retain_s=0.2)
    assert api.final(short)["output"] == LARGE
    dying = roles.start("scheduler", crash_at="scheduler.before_sweep:1")
    until(lambda: dying.gone, "the scheduler died before it deleted blobs")
    assert is_gone(api, short)
    assert len(blobs(tmp_path, short)) == 1
    roles.start("scheduler")
    until(lambda: blobs(tmp_path, short) == [], "the next one has deleted them")
