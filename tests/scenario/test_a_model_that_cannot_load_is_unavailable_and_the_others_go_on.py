from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.testing.service import RunningService

TEST_MODELS = Path(__file__).resolve().parents[1] / "models"


@pytest.mark.scenario
def test_a_model_that_cannot_load_is_unavailable_and_the_others_go_on(
    tmp_path: Path, start: Callable[..., RunningService], client_of: Callable[[RunningService], Any]
) -> None:
    models = tmp_path / "models"
    shutil.copytree(TEST_MODELS / "echo", models / "echo")
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "model.toml").write_text('task = "json"\nruntime = "python"\n')
    (models / "broken" / "1" / "model.py").write_text('raise ImportError("no module named weights")\n')
    (models / "garbled" / "1").mkdir(parents=True)
    (models / "garbled" / "model.toml").write_text('task = "json"\nruntime = "pyhton"\n')
    client = client_of(start(models_dir=models, trusted_models="echo,broken", models=""))

    states = {model["name"]: model for model in client.http.get("/v1/models").json()["models"]}
    assert states["echo"]["status"] == "ready"
    assert states["broken"]["status"] == "unavailable"
    assert "weights" in states["broken"]["reason"]
    assert states["garbled"]["status"] == "unavailable"
    assert "runtime" in states["garbled"]["reason"]
    ready = client.http.get("/readyz")
    assert ready.status_code == 200
    assert "weights" in ready.text
    assert client.final(client.submit("echo", "hello"))["output"] == "hello"
