"""A service asks for keys as soon as there is one; tenants see their own only, and have what their quotas say; on both
backends."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.scenario.conftest import TEST_MODELS, Client, Start, StartRoles, until

from forebay.testing.service import RunningService, run_command

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]
Made = tuple[RunningService, Callable[..., str]]


@pytest.fixture(params=["embedded", "kafka"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """A service with every role, and `forebay ...` beside it."""
    if request.param == "embedded":
        start: Start = request.getfixturevalue("start")
        settings: Mapping[str, str] = {"data_dir": str(tmp_path), "models_dir": str(TEST_MODELS)}
        service = start("echo")
    else:
        roles_on_kafka: StartRoles = request.getfixturevalue("roles_on_kafka")
        roles = roles_on_kafka("echo")
        settings = {**roles.settings, "models_dir": str(TEST_MODELS), "data_dir": str(tmp_path / "command")}
        service = roles.start("api", "worker", "projector", "scheduler")

    def forebay(*arguments: str) -> str:
        ran = run_command(*arguments, settings=settings)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    return service, forebay


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_the_first_key_closes_it_and_each_tenant_sees_its_own(made: Made, client_of: ClientOf) -> None:
    service, forebay = made
    http = client_of(service).http
    job: Any = {"model": "echo", "input": 1}
    assert http.post("/v1/jobs", json=job).status_code == 202
    acme, rival = (forebay("keys", "create", "--tenant", tenant) for tenant in ("acme", "rival"))
    until(lambda: http.get("/v1/jobs").status_code == 401, "nobody is let in without a key")
    answer = http.post("/v1/jobs", json=job, headers={**bearer(acme), "prefer": "wait=30"})
    assert (answer.status_code, answer.json()["output"]) == (200, 1)
    path = answer.json()["urls"]["self"]
    assert http.get(path, headers=bearer(acme)).status_code == 200
    assert http.get(path, headers=bearer(rival)).json()["code"] == "unknown_job"
    assert http.get("/v1/jobs", headers=bearer(rival)).json()["jobs"] == []

    forebay("quotas", "set", "acme", "--per-day", "3")  # has had 1

    def submitted(token: str) -> int:
        return http.post("/v1/jobs", json=job, headers=bearer(token)).status_code

    until(lambda: submitted(acme) == 429, "the quota is known")
    assert len(http.get("/v1/jobs", headers=bearer(acme)).json()["jobs"]) >= 3
    assert submitted(rival) == 202

    forebay("keys", "revoke", acme.split("_")[1])
    until(lambda: http.get(path, headers=bearer(acme)).status_code == 401, "the revoked key is let in no more")
    assert http.get("/v1/jobs", headers=bearer(rival)).status_code == 200


def test_an_address_that_others_can_reach_takes_a_key(start: Start, client_of: ClientOf, tmp_path: Path) -> None:
    refused = run_command(
        "up", settings={"host": "0.0.0.0", "port": "0", "admin_port": "0", "data_dir": str(tmp_path / "none")}
    )
    assert refused.returncode == 1
    assert "forebay keys create" in refused.stderr
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
    service = start("echo", host="0.0.0.0", api_key_file=str(tmp_path / "key"))
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        pass
    service.url = f"http://127.0.0.1:{port}"
    http = client_of(service).http
    assert http.get("/v1/jobs").status_code == 401
    assert http.get("/v1/jobs", headers={"x-api-key": "0123456789abcdef0123456789abcdef"}).status_code == 200
