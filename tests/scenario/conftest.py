"""Real services, one process each, with real runner children."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from forebay.testing.service import RunningService

ROOT = Path(__file__).resolve().parents[2]
TEST_MODELS = ROOT / "tests" / "models"

Start = Callable[..., RunningService]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("echo", ..., key=value)`: a service with these test models; settings as keywords. Killed at the end."""
    with ExitStack() as stack:

        def start_service(*models: str, models_dir: Path = TEST_MODELS, **settings: str) -> RunningService:
            chosen = {
                "trusted_models": ",".join(models),
                "models": ",".join(models),
                "data_dir": str(tmp_path),
                **settings,
            }
            service = RunningService(tmp_path, models_dir, settings=chosen)
            return stack.enter_context(service)

        yield start_service


class Client:
    """The few calls that scenarios make."""

    def __init__(self, url: str) -> None:
        self.http = httpx2.Client(base_url=url, timeout=90)

    def submit(self, model: str, value: Any, **fields: Any) -> str:
        answer = self.http.post("/v1/jobs", json={"model": model, "input": value, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def submit_body(self, model: str, body: bytes, media_type: str) -> str:
        answer = self.http.post(f"/v1/models/{model}/jobs", content=body, headers={"content-type": media_type})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str, wait_s: int = 0) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}", params={"wait": wait_s})
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def final(self, job_id: str) -> dict[str, Any]:
        """The job, once it is final; fails after two minutes."""
        for _ in range(4):
            job = self.job(job_id, wait_s=30)
            if job["status"] not in ("queued", "running"):
                return job
        raise AssertionError(f"still {job['status']} after two minutes: {job}")


@pytest.fixture
def client_of() -> Iterator[Callable[[RunningService], Client]]:
    with ExitStack() as stack:

        def connect(service: RunningService) -> Client:
            client = Client(service.url)
            stack.callback(client.http.close)
            return client

        yield connect
