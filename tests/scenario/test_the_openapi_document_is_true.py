"""Whatever schemathesis makes of the OpenAPI document, no answer is a 5xx and none breaks the contract; on both
backends. tests/fuzz has its settings and says what is narrowed; `make fuzz` asks for much more than `make test`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.scenario.conftest import ROOT, TEST_MODELS, Start, StartRoles

from forebay.testing.service import RunningService, output_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
"""Of each operation, for each phase; and sequences of linked calls."""

SEED = os.environ.get("FUZZ_SEED", "1")
KEY = "0123456789abcdef0123456789abcdef"

pytestmark = [pytest.mark.scenario, pytest.mark.slow, pytest.mark.timeout(120 + 10 * EXAMPLES)]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """A model that takes whatever the document allows: any JSON, and any time for one attempt."""
    folder = tmp_path / "models"
    shutil.copytree(TEST_MODELS / "echo", folder / "echo")
    with (folder / "echo" / "model.toml").open("a") as manifest:
        manifest.write("\n[limits]\nrun_timeout_s = 86400\n")
    return folder


@pytest.fixture(params=["embedded", "kafka"])
def service(request: pytest.FixtureRequest, tmp_path: Path, models_dir: Path) -> RunningService:
    """Every role, with two tenants' keys, of which tests/fuzz/hooks.py hears by the file `keys.json`."""
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    if request.param == "embedded":
        settings = {"data_dir": str(tmp_path), "models_dir": str(models_dir)}
        rival = output_of("keys", "create", "--tenant", "rival", settings=settings)
        start: Start = request.getfixturevalue("start")
        service = start("echo", models_dir=models_dir, api_key_file=str(key_file))
    else:
        roles_on_kafka: StartRoles = request.getfixturevalue("roles_on_kafka")
        roles = roles_on_kafka("echo", models_dir=str(models_dir), api_key_file=str(key_file))
        settings = {**roles.settings, "models_dir": str(models_dir), "data_dir": str(tmp_path / "command")}
        rival = output_of("keys", "create", "--tenant", "rival", settings=settings)
        service = roles.start("api", "worker", "projector", "scheduler")
    keys = {"default": KEY, "rival": rival.strip()}
    users = [{"name": name, "fixedHeaders": [{"name": "X-API-Key", "value": key}]} for name, key in keys.items()]
    (tmp_path / "keys.json").write_text(json.dumps({"auth": users}))
    return service


def test_it_is_true_of_every_answer(service: RunningService, tmp_path: Path) -> None:
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(
        (ROOT / "tests" / "fuzz" / "schemathesis.toml").read_text()
        + f'\n[auth.wfc]\npath = "{tmp_path}/keys.json"\nuser = "default"\npeers = ["default", "rival"]\n'
    )
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run", "--no-color"]
    asked = [f"{service.url}/openapi.json", "--max-examples", str(EXAMPLES), "--seed", SEED]
    ran = subprocess.run(
        [*command, *asked, "--report", "json", "--report-json-path", str(report)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    sys.stdout.write(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr + service.log_tail()
    found = json.loads(report.read_text())
    assert found["operations"]["tested"] == found["operations"]["total"]
    assert {phase["status"] for phase in found["phases"].values()} == {"success"}
    assert not unaccepted(found), "operations of which no request was accepted prove nothing"


def unaccepted(report: Any) -> list[str]:
    rates = report["valid_rates"]
    return [name for name, phases in rates.items() if not any(phase["accepted"] for phase in phases.values())]
