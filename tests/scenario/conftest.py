"""Real services, one process each, with real runner children."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from dev.kafka.broker import Broker
from forebay.testing.service import ENTRY, RunningService, run_command

ROOT = Path(__file__).resolve().parents[2]
TEST_MODELS = ROOT / "tests" / "models"

Start = Callable[..., RunningService]


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Of another process, which tells nobody: asked again and again. Fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not after {timeout_s} s: {what}"
        time.sleep(0.01)


class Roles:
    """A service of several processes on a real Kafka: each role in a process and a data folder of its own, states in
    PostgreSQL. Topics are named after `prefix`, which no other test uses."""

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        store: str,
        models: Sequence[str],
        models_dir: Path = TEST_MODELS,
        **settings: str,
    ) -> None:
        self._folder = folder
        self._models_dir = models_dir
        self._processes: list[RunningService] = []
        self.bootstrap = bootstrap
        self.prefix = f"s{uuid.uuid4().hex[:12]}"
        self.settings = {
            "queue": f"kafka://{bootstrap}",
            "store": store,
            "blobs": f"files://{folder / 'blobs'}",
            "blobs_shared": "true",
            "secrets": "a secret that all roles share",
            "kafka_prefix": self.prefix,
            "kafka_partitions": "3",
            "kafka_session_timeout_s": "6",
            "models": ",".join(models),
            "trusted_models": ",".join(models),
            **settings,
        }

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`forebay ARGUMENTS` with these settings."""
        places = {"models_dir": str(self._models_dir), "data_dir": str(self._folder / "command")}
        return run_command(*arguments, settings={**self.settings, **places})

    def apply_topics(self) -> None:
        done = self.command("topics", "apply")
        assert done.returncode == 0, done.stderr

    def spawn(self, *roles: str, entry: Sequence[str] = ENTRY, **settings: str) -> RunningService:
        """A process with these roles that may not be ready yet."""
        folder = self._folder / f"{'-'.join(roles)}-{len(self._processes)}"
        chosen = {**self.settings, **settings}
        process = RunningService(folder, self._models_dir, settings=chosen, roles=roles, entry=entry)
        self._processes.append(process)
        process.spawn()
        return process

    def start(self, *roles: str, entry: Sequence[str] = ENTRY, **settings: str) -> RunningService:
        process = self.spawn(*roles, entry=entry, **settings)
        process.wait_ready()
        return process

    def kill(self) -> None:
        for process in self._processes:
            process.kill()


StartRoles = Callable[..., Roles]


@pytest.fixture
def roles_on_kafka(tmp_path: Path, kafka: Broker, postgres_dsn: str) -> Iterator[StartRoles]:
    """`roles_on_kafka("echo", ..., key=value)`: topics are there, no role runs yet. All are killed at the end."""
    with ExitStack() as stack:

        def make(
            *models: str, bootstrap: str = kafka.bootstrap, models_dir: Path = TEST_MODELS, **settings: str
        ) -> Roles:
            store = settings.pop("store", postgres_dsn)
            roles = Roles(tmp_path, bootstrap, store, models, models_dir=models_dir, **settings)
            stack.callback(roles.kill)
            roles.apply_topics()
            return roles

        yield make


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("echo", ..., key=value)`: a service with these test models; settings as keywords. Killed at the end."""
    with ExitStack() as stack:

        def start_service(
            *models: str, models_dir: Path = TEST_MODELS, entry: Sequence[str] = ENTRY, **settings: str
        ) -> RunningService:
            chosen = {
                "trusted_models": ",".join(models),
                "models": ",".join(models),
                "data_dir": str(tmp_path),
                **settings,
            }
            service = RunningService(tmp_path, models_dir, settings=chosen, entry=entry)
            return stack.enter_context(service)

        yield start_service


ROLES = ("api", "worker", "projector", "scheduler", "webhooks")

Begin = Callable[..., RunningService]


@pytest.fixture(params=["embedded", "kafka"])
def begin(request: pytest.FixtureRequest) -> Begin:
    """As `start`, on each backend: every role in one process, on Kafka with PostgreSQL beside it."""
    if request.param == "embedded":
        start: Start = request.getfixturevalue("start")
        return start
    roles_on_kafka: StartRoles = request.getfixturevalue("roles_on_kafka")
    return lambda *models, **settings: roles_on_kafka(*models, **settings).start(*ROLES)


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
