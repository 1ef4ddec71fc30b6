"""What a stop finishes, what a kill leaves, and who may hold a data folder."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.scenario.conftest import until

from forebay.testing.service import RunningService, ServiceFailed, run_command

Start = Callable[..., RunningService]
ClientOf = Callable[[RunningService], Any]
TEST_MODELS = Path(__file__).resolve().parents[1] / "models"

pytestmark = pytest.mark.scenario


def _alive(pid: int) -> bool:
    """Running, and not merely waiting to be reaped by init."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_stop_lets_running_jobs_end_and_keeps_waiting_ones(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    service = start("oracle")
    client = client_of(service)
    ledger = str(tmp_path / "ledger")
    value = {"text": "a", "ledger": ledger, "run_s": 0.5}
    ids = [client.submit("oracle", value) for _ in range(40)]
    until(lambda: client.job(ids[0])["status"] == "running", "the first job runs")

    assert service.stop() == 0

    service.start()
    client = client_of(service)
    jobs = [client.final(job_id) for job_id in ids]
    assert [job["status"] for job in jobs] == ["succeeded"] * 40
    assert [job["attempts"] for job in jobs] == [1] * 40, "a graceful stop must run nothing twice"


def test_runners_die_with_their_service(start: Start, client_of: ClientOf) -> None:
    service = start("spy")
    client = client_of(service)
    runner = client.final(client.submit("spy", None))["output"]["pid"]
    assert _alive(runner)
    service.kill()
    until(lambda: not _alive(runner), "the runner is gone")


def test_a_model_sees_no_setting_and_no_open_file_of_the_service(start: Start, client_of: ClientOf) -> None:
    service = start("spy", secrets="a-secret-of-sixteen-bytes")
    seen = (client := client_of(service)).final(client.submit("spy", None))["output"]
    assert not [name for name in seen["environ"] if name.startswith("FOREBAY_")]
    assert "a-secret" not in str(seen)
    assert not [name for name in seen["files"] if "forebay.db" in name]


def test_a_second_process_on_the_same_folder_is_told_who_holds_it(tmp_path: Path, start: Start) -> None:
    service = start("echo")
    second = RunningService(tmp_path, TEST_MODELS, settings={"trusted_models": "echo", "models": "echo"})
    with pytest.raises(ServiceFailed, match=str(service.pid)):
        second.start()


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    service = start("oracle")
    client = client_of(service)
    job_id = client.submit("oracle", {"text": "a", "ledger": str(tmp_path / "ledger"), "run_s": 60})
    until(lambda: client.job(job_id)["status"] == "running", "the job runs")
    os.kill(service.pid, signal.SIGINT)
    until(lambda: "a second Ctrl-C kills" in service.log_tail(), "the first interrupt is seen")
    os.kill(service.pid, signal.SIGINT)
    until(lambda: service.gone, "it ended", timeout_s=5)


def test_a_second_interrupt_says_that_nothing_is_lost(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    service = start("oracle")
    client = client_of(service)
    job_id = client.submit("oracle", {"text": "a", "ledger": str(tmp_path / "ledger"), "run_s": 60})
    until(lambda: client.job(job_id)["status"] == "running", "the job runs")
    os.kill(service.pid, signal.SIGINT)
    until(lambda: "for at most 25 s (shutdown_grace_s)" in service.log_tail(), "the first interrupt is seen")
    os.kill(service.pid, signal.SIGINT)
    until(lambda: service.gone, "it ended", timeout_s=5)
    assert "killed by a second signal: nothing accepted is lost" in service.log_tail()


def test_a_command_finds_the_service_of_its_data_folder_while_it_runs(tmp_path: Path, start: Start) -> None:
    service = start("echo")

    def list_models() -> subprocess.CompletedProcess[str]:
        return run_command("models", "ls", "--json", settings={"data_dir": str(tmp_path), "port": "0"}, cwd=tmp_path)

    assert '"name": "echo"' in list_models().stdout
    service.kill()
    assert (tmp_path / "address.json").exists()
    assert "no service runs on" in list_models().stderr
    service.start()
    assert '"name": "echo"' in list_models().stdout
    assert service.stop() == 0
    assert not (tmp_path / "address.json").exists()


def test_a_port_in_use_is_said_with_the_setting_to_change(tmp_path: Path, start: Start) -> None:
    port = start("echo").url.rsplit(":", 1)[1]
    second = RunningService(
        tmp_path / "other", TEST_MODELS, settings={"trusted_models": "echo", "models": "echo", "port": port}
    )
    with pytest.raises(ServiceFailed, match="FOREBAY_PORT"):
        second.start()


def test_large_inputs_and_results_travel_by_reference(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    service = start("echo")
    client = client_of(service)
    text = "x" * 1_000_000
    job = client.final(client.submit("echo", text))
    assert job["output"] == text
    assert client.http.get(job["urls"]["result"]).json() == text
    blobs = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert blobs, "the input and the result lie in the blob store"
    database = (tmp_path / "forebay.db").stat().st_size
    assert database < 500_000


def test_a_stop_ends_long_waits_early(tmp_path: Path, start: Start, client_of: ClientOf) -> None:
    service = start("oracle")
    client = client_of(service)
    job_id = client.submit("oracle", {"text": "a", "ledger": str(tmp_path / "ledger"), "run_s": 1.0})
    later = client.submit("oracle", {"text": "b", "ledger": str(tmp_path / "ledger"), "run_s": 1.0})
    waiting = subprocess.Popen(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{service.url}/v1/jobs/{later}?wait=60"],
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: client.job(job_id)["status"] == "running", "the job runs")
    assert service.stop(timeout_s=20) == 0
    assert waiting.communicate(timeout=20)[0] == "200"
