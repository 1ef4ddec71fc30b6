"""Whatever keeps a job waiting is named, and a queue that is full refuses more, on both backends."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.scenario.conftest import TEST_MODELS, Client, Start, StartRoles, until

from dev.kafka.broker import Broker
from dev.s3.server import BUCKET, S3Server
from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]

ACTOR = """
import os, signal, time
from forebay import ModelFailed

class Model:
    def load(self, folder):
        self.folder = folder
        while (folder / "hold").exists():
            time.sleep(0.02)

    def predict(self, inputs):
        return [getattr(self, one)() for one in inputs]

    def echo(self):
        return "done"

    def large(self):
        return "x" * 2_000_000

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def later(self):
        return ModelFailed("not yet", code="not_yet", retryable=True)
"""
TOML = 'task = "json"\nruntime = "python"\n[retry]\nfirst_delay_s = 600\n[batching]\nmax_batch_size = 1\n'


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`actor` does what it is told, `broken` cannot be loaded, and `idle` is served by nobody."""
    folder = tmp_path / "models"
    for name, source in (("actor", ACTOR), ("broken", 'raise ImportError("no module named weights")\n')):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "model.toml").write_text(TOML)
        (folder / name / "1" / "model.py").write_text(source)
    shutil.copytree(TEST_MODELS / "echo", folder / "idle")
    (folder / "idle" / "model.toml").write_text(TOML + "[limits]\nmax_queue_length = 2\n")
    return folder


def explain(api: Client, job_id: str) -> dict[str, Any]:
    answer = api.http.get(f"/v1/jobs/{job_id}/explain")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def why(api: Client, job_id: str, code: str) -> str:
    """The words of that cause, as soon as it is the first."""
    found: list[dict[str, Any]] = []

    def named() -> bool:
        found.append(explain(api, job_id))
        return bool(found[-1]["causes"][0]["code"] == code)

    try:
        until(named, f"{code} is told")
    except AssertionError:
        raise AssertionError(found[-1]) from None
    return str(found[-1]["causes"][0]["message"])


def refused(api: Client, **fields: Any) -> bool:
    answer = api.http.post("/v1/jobs", json={"model": "idle", "input": 1, **fields})
    if answer.status_code == 202:
        return False
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert 1 <= int(answer.headers["retry-after"]) <= 600
    return True


def each_cause_is_named(api: Client, models: Path) -> str:
    """A job that nobody serves."""
    unserved = api.submit("idle", 1)
    assert "no live worker" in why(api, unserved, "no_worker")
    assert refused(api, max_queue_length=0)
    assert [refused(api) for _ in range(3)] == [False, True, True]
    assert not refused(api, lane="low", max_queue_length=0)
    assert "no module named weights" in why(api, api.submit("broken", 1), "model_failed_to_load")

    retried = api.submit("actor", "later")
    assert "attempt 2 is due" in why(api, retried, "retry_due")
    assert explain(api, retried)["retry_at"] > api.job(retried)["created_at"]

    assert api.final(api.submit("actor", "echo"))["output"] == "done"
    hold = models / "actor" / "1" / "hold"
    hold.touch()
    fatal = api.submit("actor", "die")
    until(lambda: bool(api.job(fatal)["status"] == "running"), "the runner has begun to die")
    waiting = api.submit("actor", "echo")
    assert "restarting" in why(api, waiting, "workers_restarting")
    hold.unlink()
    assert api.final(waiting)["status"] == "succeeded"
    assert why(api, waiting, "final")

    queues = {(one["model"], one["lane"]): one for one in api.http.get("/v1/queues").json()["queues"]}
    assert (queues["idle", "normal"]["waiting"], queues["idle", "normal"]["workers"]) == (2, 0)
    assert queues["actor", "normal"]["workers"] == 1
    return unserved


def test_each_cause_is_named_in_one_process(
    start: Start, client_of: ClientOf, models: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    for name in ("region", "access_key_id", "secret_access_key"):
        monkeypatch.setenv(f"AWS_{name.upper()}", s3.options[name])
    blobs = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    service = start(models_dir=models, trusted_models="actor,broken,idle", models="actor,broken", blobs=blobs)
    api = client_of(service)
    each_cause_is_named(api, models)
    s3.kill()
    assert "blob store" in why(api, api.submit("actor", "large"), "backend_away")


def test_each_cause_is_named_on_kafka(
    roles_on_kafka: StartRoles, client_of: ClientOf, models: Path, kafka: Broker
) -> None:
    roles = roles_on_kafka("actor", "broken", "idle", models_dir=models)
    api = client_of(roles.start("api", "projector", "scheduler"))
    roles.start("worker", models="actor,broken")
    unserved = each_cause_is_named(api, models)
    kafka.kill()
    assert "queue" in why(api, unserved, "backend_away")
