"""Each line of a file is one job, whoever dies while it is sent; results come in its order; on both backends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.scenario.conftest import Client, Start, StartRoles, until

from forebay.testing.service import RunningService, environ_of, run_command

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]
LINES = 2000
BAD = {7: b"{", 800: b'{"inptu": 1}', 2000: b'{"input": 1, "lane": "fast"}'}
UUID = "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
DIES = {"crash_at": "api.batch_part:3"}


def file(model: str = "echo", lines: int = LINES) -> bytes:
    return b"".join(
        BAD.get(n, json.dumps({"input": {"n": n}, "custom_id": f"row {n}", "model": model}).encode()) + b"\n"
        for n in range(1, lines + 1)
    )


def send(api: Client, body: bytes) -> httpx2.Response:
    return api.http.put(f"/v1/batches/{UUID}", content=body, headers={"content-type": "application/x-ndjson"})


def finished(api: Client, name: str = UUID) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        found: dict[str, Any] = api.http.get(f"/v1/batches/{name}").json()
        return found

    until(lambda: "finished_at" in look(), "the batch is finished")
    return look()


def all_jobs(api: Client) -> Iterator[dict[str, Any]]:
    params = {"limit": "1000"}
    while True:
        page = api.http.get("/v1/jobs", params=params).json()
        yield from page["jobs"]
        if "next_cursor" not in page:
            return
        params["cursor"] = page["next_cursor"]


def it_is_whole(api: Client, other_jobs: int = 0) -> None:
    batch = finished(api)
    good = LINES - len(BAD)
    assert (batch["status"], batch["counts"]["succeeded"], batch["counts"]["rejected"]) == ("completed", good, len(BAD))
    answer = api.http.get(f"/v1/batches/{UUID}/results")
    assert answer.status_code == 200
    for number, text in enumerate(answer.text.splitlines(), start=1):
        line = json.loads(text)
        expected = ("rejected", None) if number in BAD else ("succeeded", {"n": number})
        assert (line["line"], line["status"], line.get("output")) == (number, *expected)
    jobs = [job["id"] for job in all_jobs(api)]
    assert len(jobs) == len(set(jobs)) == good + other_jobs


def command(folder: Path, url: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "forebay", "batch", *arguments, "in.jsonl", "out.jsonl", "--url", url]


def interrupted(folder: Path, url: str, api: Client, model: str) -> None:
    """`forebay batch` that waits for its jobs and is told Ctrl-C."""
    running = subprocess.Popen(
        command(folder, url, model), cwd=folder, env=environ_of({}), stderr=subprocess.PIPE, text=True
    )
    until((folder / "out.jsonl.batch").exists, "it has begun")
    name = json.loads((folder / "out.jsonl.batch").read_text())["batch"]
    until(lambda: api.http.get(f"/v1/batches/{name}").json().get("status") == "running", "all is sent")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130, said
    assert "To go on from here" in said
    assert not (folder / "out.jsonl").exists()


def go_on(folder: Path, url: str, *arguments: str) -> tuple[int, list[Any]]:
    done = run_command(*command(folder, url, *arguments)[3:], settings={}, cwd=folder)
    assert (folder / "out.jsonl").exists(), done.stderr
    return done.returncode, [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_an_upload_goes_on_after_a_restart_and_a_batch_can_be_canceled(
    start: Start, client_of: ClientOf, tmp_path: Path
) -> None:
    service = start("echo", "troublesome", **DIES)
    with pytest.raises(httpx2.TransportError):
        send(client_of(service), file())
    service.wait()
    service.without("crash_at")
    service.start()
    api = client_of(service)
    found = api.http.get(f"/v1/batches/{UUID}").json()
    assert found["status"] == "incomplete"
    assert send(api, file()).status_code == 202
    it_is_whole(api)
    assert send(api, file()).headers["idempotency-replayed"] == "true"

    folder = tmp_path / "command"
    folder.mkdir()
    (folder / "in.jsonl").write_text('{"input": {"harm": "hang"}}\n' * 1000)
    interrupted(folder, service.url, api, "troublesome")
    code, lines = go_on(folder, service.url, "troublesome", "--cancel")
    assert (code, {line["status"] for line in lines}, len(lines)) == (1, {"canceled"}, 1000)
    assert {job["status"] for job in all_jobs(api)} == {"succeeded", "canceled"}


def test_an_upload_goes_on_at_another_api_when_its_own_dies(
    roles_on_kafka: StartRoles, client_of: ClientOf, tmp_path: Path
) -> None:
    roles = roles_on_kafka("echo")
    first, second = roles.start("api", **DIES), roles.start("api", "projector")
    with pytest.raises(httpx2.TransportError):
        send(client_of(first), file())
    api = client_of(second)
    assert send(api, file()).status_code == 202

    folder = tmp_path / "command"
    folder.mkdir()
    (folder / "in.jsonl").write_bytes(file(lines=6))
    interrupted(folder, second.url, api, "echo")  # no worker runs yet
    roles.start("worker")
    code, lines = go_on(folder, second.url, "echo")
    assert (code, [line["output"]["n"] for line in lines]) == (0, [1, 2, 3, 4, 5, 6])
    it_is_whole(api, other_jobs=6)
