from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.testing.service import RunningService

TEST_MODELS = Path(__file__).resolve().parents[1] / "models"


@pytest.mark.scenario
def test_only_the_highest_version_of_a_model_takes_jobs(
    tmp_path: Path, start: Callable[..., RunningService], client_of: Callable[[RunningService], Any]
) -> None:
    models = tmp_path / "models"
    shutil.copytree(TEST_MODELS / "echo", models / "echo")
    shutil.copytree(models / "echo" / "1", models / "echo" / "10")
    shutil.copytree(models / "echo" / "1", models / "echo" / "9")
    client = client_of(start("echo", models_dir=models))

    [model] = client.http.get("/v1/models").json()["models"]
    assert (model["version"], model["versions"]) == ("10", ["10"])
    refused = client.http.post("/v1/jobs", json={"model": "echo", "input": 1, "version": "9"})
    assert refused.status_code == 404
    assert refused.json()["code"] == "unknown_version"
    assert refused.json()["detail"] == "model 'echo' is not served in version '9', only in 10"
    assert refused.json()["known"] == ["10"]
    assert client.final(client.submit("echo", 1, version="10"))["version"] == "10"
    assert client.final(client.submit("echo", 1))["version"] == "10"
