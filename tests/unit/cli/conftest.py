"""A service that the commands talk to, played by a function, and the commands run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from forebay.cli import main, service

JOB_ID = "01934b5c-0000-7000-8000-000000000000-0123456789abcdef"

JOB: Mapping[str, Any] = {
    "id": JOB_ID,
    "model": "sentiment",
    "status": "queued",
    "lane": "normal",
    "attempts": 0,
    "created_at": "2026-11-23T18:00:00.000000Z",
    "durability": "process",
    "urls": {"self": f"/v1/jobs/{JOB_ID}", "result": f"/v1/jobs/{JOB_ID}/result"},
}
RUNNING = {**JOB, "status": "running", "attempts": 1, "started_at": "2026-11-23T18:00:00.010000Z"}
SUCCEEDED = {
    **RUNNING,
    "status": "succeeded",
    "version": "1",
    "finished_at": "2026-11-23T18:00:00.210000Z",
    "metrics": {"queue_s": 0.01, "predict_s": 0.2, "batch_size": 4},
    "output": [{"label": "POSITIVE", "score": 0.98}],
}
FAILED = {
    **RUNNING,
    "status": "failed",
    "attempts": 3,
    "finished_at": "2026-11-23T18:00:00.210000Z",
    "error": {"code": "model_error", "message": "the model raised ValueError", "retryable": False},
}


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class FakeService:
    """Answers each `METHOD /path` with the next of its answers, the last one again and again; keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self._answers: dict[str, list[httpx2.Response | BaseException]] = {}

    def answers(self, route: str, *answers: Any, status: int = 200) -> None:
        """Mappings and lists become JSON; a Response or an exception is given as it is."""
        self._answers[route] = [
            one if isinstance(one, httpx2.Response | BaseException) else httpx2.Response(status, json=one)
            for one in answers
        ]

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        found = self._answers.get(f"{request.method} {request.url.path}")
        if found is None:
            problem = {"title": "Not Found", "status": 404, "code": "route_not_found", "detail": "Nothing is there."}
            return httpx2.Response(404, json=problem)
        answer = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the person who runs the tests."""
    for name in ("FOREBAY_URL", "FOREBAY_HOST", "FOREBAY_PORT", "FOREBAY_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    made = FakeService()
    monkeypatch.setattr(service, "Service", partial(service.Service, transport=httpx2.MockTransport(made)))
    return made


@pytest.fixture
def forebay(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `forebay ARGUMENTS`."""

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return run
