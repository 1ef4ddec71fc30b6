"""Whatever schemathesis makes of the OpenAPI document, no answer is a 5xx and none breaks the contract; on both
backends. tests/fuzz has its settings and says what is narrowed; `make fuzz` asks for much more than `make test`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.scenario.conftest import ROOT, Start, StartRoles

from forebay.testing.service import RunningService, output_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
"""Of each operation, for each phase; and four times as many sequences of linked calls."""

PHASES = {"embedded": "examples,coverage,fuzzing,stateful", "kafka": "examples,fuzzing,stateful"}
if "FUZZ_EXAMPLES" in os.environ:
    PHASES["kafka"] = PHASES["embedded"]
"""Coverage is the longest, and tries how requests are read, which is the same on both: `make test` has it once."""

SEED = os.environ.get("FUZZ_SEED", "1")
KEY = "0123456789abcdef0123456789abcdef"
SETTINGS = """
[phases.stateful.generation]
max-examples = {sequences}

[auth.wfc]
path = "{keys}"
user = "default"
peers = ["default", "rival"]

[dictionaries.failed]
values = ["{failed}"]
[dictionaries.batches]
values = ["{batch}"]
[dictionaries.endpoints]
values = ["{endpoint}"]
[dictionaries.spare_endpoints]
values = {spare_endpoints}

# Only what failed is a dead letter, and is done again; batches are few.
[[operations]]
include-operation-id = ["get_dead_letter", "redrive_dead_letter", "retry_job"]
parameters."path.job_id" = {{ dictionary = "failed", probability = 0.8 }}
[[operations]]
include-operation-id = ["get_batch", "get_results", "cancel_batch"]
parameters."path.batch_id" = {{ dictionary = "batches", probability = 0.8 }}
[[operations]]
include-operation-id = ["get_endpoint", "change_endpoint", "get_endpoint_secret", "rotate_endpoint_secret"]
parameters."path.endpoint_id" = {{ dictionary = "endpoints", probability = 0.8 }}
[[operations]]
include-operation-id = "remove_endpoint"
parameters."path.endpoint_id" = {{ dictionary = "spare_endpoints", probability = 0.8 }}
"""
"""What tests/fuzz/schemathesis.toml cannot know."""

pytestmark = [pytest.mark.scenario, pytest.mark.slow, pytest.mark.timeout(120 + 10 * EXAMPLES)]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A model that takes whatever the document allows, any JSON and any time for one attempt, and fails of null."""
    folder = tmp_path / "models" / "echo"
    (folder / "1").mkdir(parents=True)
    (folder / "model.toml").write_text('task = "json"\nruntime = "python"\n[limits]\nrun_timeout_s = 86400\n')
    (folder / "1" / "model.py").write_text(
        "class Model:\n"
        "    def predict(self, inputs):\n"
        "        return [ValueError('null') if one is None else one for one in inputs]\n"
    )
    return folder.parent


@pytest.fixture(params=["embedded", "kafka"])
def service(request: pytest.FixtureRequest, tmp_path: Path, models_dir: Path) -> RunningService:
    """Every role, with two tenants' keys and something to find; and the settings with which to fuzz it."""
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    if request.param == "embedded":
        settings = {"data_dir": str(tmp_path), "models_dir": str(models_dir)}
        rival = output_of("keys", "create", "--tenant", "rival", settings=settings)
        start: Start = request.getfixturevalue("start")
        service = start("echo", models_dir=models_dir, api_key_file=str(key_file))
    else:
        roles_on_kafka: StartRoles = request.getfixturevalue("roles_on_kafka")
        roles = roles_on_kafka("echo", models_dir=models_dir, api_key_file=str(key_file))
        settings = {**roles.settings, "models_dir": str(models_dir), "data_dir": str(tmp_path / "command")}
        rival = output_of("keys", "create", "--tenant", "rival", settings=settings)
        service = roles.start("api", "worker", "projector", "scheduler")
    settings_of_run = SETTINGS.format(sequences=4 * EXAMPLES, keys=tmp_path / "keys.json", **seed(service))
    common = (ROOT / "tests" / "fuzz" / "schemathesis.toml").read_text()
    (tmp_path / "schemathesis.toml").write_text(common + settings_of_run)
    keys = {"default": KEY, "rival": rival.strip()}
    users = [{"name": name, "fixedHeaders": [{"name": "X-API-Key", "value": key}]} for name, key in keys.items()]
    (tmp_path / "keys.json").write_text(json.dumps({"auth": users}))
    return service


def seed(service: RunningService) -> dict[str, str]:
    """The ids of a job that failed, as hardly any does, of a batch and of endpoints, some of them to be removed; and
    one job that succeeded is there, too."""
    with httpx2.Client(base_url=service.url, headers={"x-api-key": KEY}, timeout=60) as http:
        for value in (1, None):
            answer = http.post("/v1/jobs", json={"model": "echo", "input": value}, headers={"prefer": "wait=30"})
            assert answer.status_code == 200, answer.text
        line = '{"model": "echo", "input": 1}'
        batch = http.post("/v1/batches", content=line, headers={"content-type": "application/jsonl"})
        assert batch.status_code == 202, batch.text
        added = [http.post("/v1/webhook-endpoints", json={"url": "https://receiver.example"}) for _ in range(4)]
        endpoint, *spare = [one.json()["id"] for one in added]
    found = {"failed": answer.json()["id"], "batch": batch.json()["id"], "endpoint": endpoint}
    return {**found, "spare_endpoints": json.dumps(spare)}


def test_it_is_true_of_every_answer(service: RunningService, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    phases = PHASES[request.node.callspec.params["service"]]
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml"), "run"]
    asked = [f"{service.url}/openapi.json", "--max-examples", str(EXAMPLES), "--seed", SEED, "--phases", phases]
    ran = subprocess.run(
        [*command, *asked, "--no-color", "--report", "json", "--report-json-path", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    sys.stdout.write(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr + service.log_tail()
    found = json.loads(report.read_text())
    assert found["operations"]["tested"] == found["operations"]["total"]
    assert {found["phases"][name]["status"] for name in phases.split(",")} == {"success"}
    if "coverage" in phases:
        assert unaccepted(found) == [], "operations of which no request was accepted prove nothing"


def unaccepted(report: Any) -> list[str]:
    rates = report["valid_rates"]
    return [name for name, phases in rates.items() if not any(phase["accepted"] for phase in phases.values())]
