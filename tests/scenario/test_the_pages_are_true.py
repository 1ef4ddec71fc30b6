"""Every curl line of the pages about single capabilities prints what the page shows, on the service that it starts."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.testing.service import RunningService

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "batches",
    "canceling",
    "dead-letters",
    "idempotency",
    "keys",
    "listing",
    "queues",
    "retention",
    "watching",
    "webhooks",
)
ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}-[0-9a-f]{16}|ep_[0-9a-f]{24}|msg_[0-9a-f]{32}"
)
VARIES = re.compile(r'\d{4}-\d\d-\d\dT[\d:.]+Z|whsec_[\w+/]+=*|(?<=_s":)[\d.e-]+|(?<="score":)[\d.e-]+')
RECEIVER = re.compile(r"\b9000\b")
"""The port of the page's receiver, in whose place any other will do."""
END = "--- that was all of it"
SETTING = re.compile(r"FOREBAY_([A-Z_]+)=(\S+)")

pytestmark = pytest.mark.scenario


def commands(page: str) -> list[tuple[str, str]]:
    """Each command of the page's console blocks, with what is shown of its output."""
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    parts = [part.partition("\n") for block in blocks for part in block.split("$ ")[1:]]
    return [(command, output.strip()) for command, _, output in parts]


@pytest.mark.parametrize("name", PAGES)
def test_every_line_prints_what_its_page_shows(
    name: str, start: Callable[..., RunningService], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [(starting, _), *lines] = commands((ROOT / "docs" / f"{name}.md").read_text())
    assert starting.endswith("make up")
    assert lines
    settings = {setting.lower(): value for setting, value in SETTING.findall(starting)}
    service = start(**{"models": "", "trusted_models": "", **settings, "models_dir": ROOT / settings["models_dir"]})
    address = service.url.removeprefix("http://")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    # Typed into one shell, one after the other; ids of the page stand for those that came.
    monkeypatch.setenv("FOREBAY_DATA_DIR", str(tmp_path))
    shell = subprocess.Popen(["bash"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write("trap 'kill $(jobs -p) 2> /dev/null' EXIT\n")
        ids: dict[str, str] = {}
        for command, shown in lines:
            here = RECEIVER.sub(port, command).replace("localhost:8000", address)
            real = ID.sub(lambda match: ids[match.group()], here)
            shell.stdin.write(f"{real}\necho; echo {END}\n")
            shell.stdin.flush()
            printed = "".join(iter(shell.stdout.readline, f"{END}\n")).strip()
            for shown_id, real_id in zip(ID.findall(shown), ID.findall(printed), strict=True):
                ids.setdefault(shown_id, real_id)
            assert VARIES.sub("…", ID.sub("ID", printed)) == VARIES.sub("…", ID.sub("ID", shown)), command
        shell.stdin.close()
