"""Every command of the README and of docs/kafka.md is run against a service that was started as it says, and prints
what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dev.kafka.broker import Broker
from forebay.testing.service import RunningService, environ_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}-[0-9a-f]{16}")
VARIES = re.compile(r'\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=_s":)[\d.e-]+|(?<="score":)[\d.e-]+')

pytestmark = pytest.mark.scenario


def _commands() -> list[tuple[str, str]]:
    """(command, what the README shows of its output) of every console block."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output.strip()))
    return found


def test_every_curl_line_prints_what_the_readme_shows(start: Callable[..., RunningService]) -> None:
    service = start(models_dir=ROOT / "models", models="", trusted_models="")
    address = service.url.removeprefix("http://")
    ids: dict[str, str] = {}
    lines = [(command, shown) for command, shown in _commands() if command.startswith("curl")]
    assert len(lines) == 5
    for command, shown in lines:
        real = ID.sub(lambda match: ids[match.group()], command).replace("localhost:8000", address)
        printed = subprocess.run(["bash", "-c", real], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for shown_id, real_id in zip(ID.findall(shown), ID.findall(printed), strict=True):
            ids.setdefault(shown_id, real_id)
        assert VARIES.sub("…", ID.sub("ID", printed.strip())) == VARIES.sub("…", ID.sub("ID", shown))


def _kafka_block(page: Path) -> list[str]:
    """The lines of the one console block that starts the service on Kafka."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    [block] = [one for one in blocks if "topics apply" in one]
    return [line.removeprefix("$ ") for line in block.splitlines()]


def _with_our_places(lines: list[str], places: Mapping[str, str]) -> list[str]:
    script = "\n".join(lines)
    for shown, ours in places.items():
        assert shown in script
        script = script.replace(shown, ours)
    return script.splitlines()


def _run(starting: list[str], submitting: str, folder: Path) -> str:
    """What was printed, once all the lines have done well. The last line is typed when the API has said that it is
    ready."""
    environ = environ_of({"data_dir": str(folder), "port": "0", "kafka_prefix": f"r{uuid.uuid4().hex}"})
    ready = f"until [ -e {folder}/address.json ]; do sleep 0.1; done"
    told = folder / "told.txt"  # by itself: among the logs of all the roles a report of the failure would lose it
    ending = "status=$?; kill $(jobs -p); wait; exit $status"
    script = "\n".join([*starting, ready, f"{submitting} 2>{told}", ending])
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, f"{told.read_text() if told.exists() else ''}\n{done.stderr[-20_000:]}"
    return done.stdout


def test_the_service_on_kafka_starts_and_answers_as_the_readme_says(
    tmp_path: Path, kafka: Broker, postgres_dsn: str
) -> None:
    places = {"kafka://127.0.0.1:9092": f"kafka://{kafka.bootstrap}", "$(cat .postgres/dsn)": postgres_dsn}
    *starting, submitting = _with_our_places(_kafka_block(ROOT / "README.md"), places)
    printed = _run(starting, submitting, tmp_path)
    assert "POSITIVE" in printed or "NEGATIVE" in printed


def test_the_commands_for_whoever_runs_it_on_kafka_do_what_they_say(
    tmp_path: Path, kafka: Broker, postgres_dsn: str
) -> None:
    """Those of docs/kafka.md, each of which may be typed on another machine; here all are on this one."""
    places = {
        "kafka://broker-1:9092,broker-2:9092": f"kafka://{kafka.bootstrap},{kafka.bootstrap}",
        "postgresql://forebay@db/forebay": postgres_dsn,
        "s3://bucket/forebay": f"files://{tmp_path / 'blobs'}",
        "FOREBAY_SECRETS=...": f"FOREBAY_SECRETS={uuid.uuid4().hex}",
        "--models sentiment": "--models text_classification",
    }
    shown = _with_our_places(_kafka_block(ROOT / "docs" / "kafka.md"), places)
    lines = [line.partition(" #")[0].rstrip() for line in shown]
    assert [line.split()[1] for line in lines if line.startswith("forebay")] == ["topics", *["run"] * 5]
    typed = [f"{line} &" if line.startswith("forebay run") else line for line in lines]
    ours = ["set -e", f"export PATH={Path(sys.executable).parent}:$PATH FOREBAY_BLOBS_SHARED=true FOREBAY_ADMIN_PORT=0"]
    at = typed.index("forebay topics apply") + 1
    typed[at:at] = ["forebay topics plan", "forebay topics acls", "set +e"]
    printed = _run([*ours, *typed], 'forebay submit text_classification "I love it."', tmp_path)
    assert "topics are as they should be" in printed
    assert "--allow-principal User:forebay-worker" in printed
    assert "POSITIVE" in printed


def test_the_commands_that_the_readme_names_are_make_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "check", "up", "bench", "chaos"} <= named
    assert named <= targets


def test_the_handler_of_the_readme_answers(
    tmp_path: Path, start: Callable[..., RunningService], client_of: Callable[[RunningService], Any]
) -> None:
    handler = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    manifest = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0]
    folder = tmp_path / "models" / "shout"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(handler)
    (folder / "model.toml").write_text(manifest)
    client = client_of(start("shout", models_dir=tmp_path / "models"))
    assert client.final(client.submit("shout", "hello"))["output"] == "HELLO!"


def test_the_demo_finds_every_answer_right(tmp_path: Path) -> None:
    environ = {**os.environ, "HOME": str(tmp_path), "COLUMNS": "120"}
    python = sys.executable
    done = subprocess.run(
        [python, "examples/demo.py"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 of 19" in done.stdout
