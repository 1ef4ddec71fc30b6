"""What failed is looked into, and done again once however often it is asked for; on both backends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.scenario.conftest import Client, Start, StartRoles, until

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]
MANY = 20


class World:
    """A service whose model is down. `apis` are those to call; `restart_worker` kills whoever runs the model."""

    def __init__(self, folder: Path, apis: Callable[[], Sequence[Client]], restart_worker: Callable[[], None]) -> None:
        self.apis = apis
        self.restart_worker = restart_worker
        self.down, self._ledger = folder / "down", folder / "ledger"
        self.down.touch()

    @property
    def api(self) -> Client:
        return self.apis()[0]

    def submit(self, mood: str, n: int) -> str:
        value = {"mood": mood, "n": n, "down": str(self.down), "ledger": str(self._ledger)}
        return self.api.submit("moody", value, metadata={"n": n})

    def ran(self) -> Counter[str]:
        """How often the model was asked for each job."""
        return Counter(self._ledger.read_text().split())


@pytest.fixture
def embedded(start: Start, client_of: ClientOf, tmp_path: Path) -> World:
    service = start("moody")

    def restart() -> None:
        service.kill()
        service.start()

    return World(tmp_path, lambda: [client_of(service)], restart)


@pytest.fixture
def on_kafka(roles_on_kafka: StartRoles, client_of: ClientOf, tmp_path: Path) -> World:
    roles = roles_on_kafka("moody")
    apis = [client_of(roles.start("api", "projector")), client_of(roles.start("api", "scheduler"))]
    workers = [roles.start("worker")]

    def restart() -> None:
        workers[-1].kill()
        workers.append(roles.start("worker"))

    return World(tmp_path, lambda: apis, restart)


@pytest.fixture(params=["embedded", "on_kafka"])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.getfixturevalue(request.param)
    return made


def dead_letters(api: Client, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.http.get("/v1/dead-letters", params=query).json()["dead_letters"]
    return found


def redrive(api: Client, **query: Any) -> list[tuple[str, str]]:
    """All that fit; of those that were done again by this call the old id and the new one."""
    redriven: list[tuple[str, str]] = []
    while True:
        answer = api.http.post("/v1/dead-letters/redrive", params={"rate": 1000, **query})
        assert answer.status_code == 200, answer.text
        redriven += [(job["retry_of"], job["id"]) for job in answer.json()["jobs"]]
        if "next_cursor" not in answer.json():
            return redriven
        query["cursor"] = answer.json()["next_cursor"]


def test_what_failed_is_done_again_once(world: World) -> None:
    fatal = [world.submit("fatal", n) for n in range(MANY)]
    passing = world.submit("passing", MANY)
    hung = world.submit("hang", MANY + 1)
    for job_id in (*fatal, passing):
        assert world.api.final(job_id)["status"] == "failed"
    until(lambda: world.api.job(hung)["status"] == "running", "the model hangs")
    world.restart_worker()
    until(lambda: world.api.job(hung)["attempts"] == 2, "another has begun")
    world.down.unlink()
    assert world.api.final(hung)["error"]["code"] == "hung"

    # Looked into.
    assert {job["id"] for job in dead_letters(world.api)} == {*fatal, passing, hung}
    history = world.api.http.get(f"/v1/dead-letters/{passing}").json()["history"]
    assert [one["attempt"] for one in history] == sorted({one["attempt"] for one in history})
    assert len(history) >= 2
    assert history[-1]["error"]["code"] == "passing"
    assert history[-1]["started_at"] < history[-1]["finished_at"]
    shown = world.api.http.get(f"/v1/dead-letters/{hung}").json()
    first, second = shown["history"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert "error" not in first
    assert second["error"]["code"] == "hung"
    assert first["worker"] != second["worker"]
    assert json.loads(shown["headers"]["forebay-metadata"]) == {"n": MANY + 1}
    lines = world.api.http.get("/v1/dead-letters/export", params={"code": "fatal"}).text.splitlines()
    assert sorted(json.loads(line)["input"]["value"]["n"] for line in lines) == list(range(MANY))

    # One again.
    before = world.api.http.get(f"/v1/jobs/{passing}").content
    again = world.api.http.post(f"/v1/jobs/{passing}/retry").json()["id"]
    assert world.api.final(again)["output"] == MANY
    assert world.api.http.get(f"/v1/jobs/{passing}").content == before

    # Many again: at all APIs at once, and once more.
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(redrive, api, code="fatal") for api in (*world.apis(), *world.apis())]
        redriven = [job for call in calls for job in call.result()]
    assert sorted(old for old, _ in redriven) == sorted(fatal)
    assert redrive(world.api, code="fatal") == []
    assert [job["id"] for job in dead_letters(world.api)] == [hung]
    for old, new in redriven:
        job = world.api.final(new)
        assert (job["status"], job["retry_of"]) == ("succeeded", old)
    jobs = world.api.http.get("/v1/jobs", params={"limit": 1000}).json()["jobs"]
    retries = {job["id"] for job in jobs if "retry_of" in job}
    assert retries == {again, *(new for _, new in redriven)}
    ran = world.ran()
    assert [ran[job_id] for job_id in retries] == [1] * (MANY + 1)
