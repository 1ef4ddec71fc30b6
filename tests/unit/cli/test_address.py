"""The address that a service leaves in its data folder, and who believes it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.cli.conftest import FakeService, Ran

from forebay.cli.address import AddressFile, address_in, reachable

Forebay = Callable[..., Ran]
ADDRESS = "http://127.0.0.1:4711"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / ".forebay"
    folder.mkdir()
    return folder


@pytest.fixture
def running(data: Path) -> Iterator[Path]:
    """A data folder on which a service runs."""
    address = AddressFile(data)
    address.write(ADDRESS)
    yield data
    address.remove()


def test_the_address_is_there_while_the_service_runs(data: Path) -> None:
    address = AddressFile(data)
    assert address_in(data) == ""
    address.write(ADDRESS)
    assert address_in(data) == ADDRESS
    assert json.loads((data / "address.json").read_text()) == {"pid": os.getpid(), "api_url": ADDRESS}
    assert stat.S_IMODE((data / "address.json").stat().st_mode) == 0o600
    address.remove()
    assert list(data.iterdir()) == []


def test_an_address_that_a_killed_service_left_is_ignored(data: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom forebay.cli.address import AddressFile\n"
        "AddressFile(Path(sys.argv[1])).write('http://127.0.0.1:1')\nos.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", program, str(data)], check=False, timeout=60)
    assert died.returncode == -9
    assert (data / "address.json").exists()
    assert address_in(data) == ""


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}"])
def test_what_is_no_address_is_ignored(text: str, data: Path) -> None:
    (data / "address.json").write_text(text)
    assert address_in(data) == ""


def test_a_service_takes_away_no_address_but_its_own(running: Path) -> None:
    first = AddressFile(running)
    first.write("http://127.0.0.1:1")
    second = AddressFile(running)
    second.write("http://127.0.0.1:2")
    first.remove()
    assert address_in(running) == "http://127.0.0.1:2"
    second.remove()


def test_a_folder_that_cannot_be_written_to_hinders_nobody(tmp_path: Path) -> None:
    address = AddressFile(tmp_path / "none")
    address.write(ADDRESS)
    address.remove()
    assert address_in(tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("listens", "reached"),
    [
        ("http://0.0.0.0:80", "http://127.0.0.1:80"),
        ("http://[::]:80", "http://[::1]:80"),
        ("http://10.0.0.1:80", "http://10.0.0.1:80"),
    ],
)
def test_all_addresses_are_reached_at_the_loopback(listens: str, reached: str) -> None:
    assert reachable(listens) == reached


def test_client_commands_ask_the_service_that_runs_on_their_data_folder(
    running: Path, fake: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answers("GET /v1/models", {"models": []})
    forebay("models", "ls")
    monkeypatch.setenv("FOREBAY_PORT", "0")
    forebay("models", "ls")
    monkeypatch.setenv("FOREBAY_URL", "http://env:1")
    forebay("models", "ls")
    forebay("models", "ls", "--url", "http://option:1")
    assert [request.url.host for request in fake.requests] == ["127.0.0.1", "127.0.0.1", "env", "option"]
    assert [request.url.port for request in fake.requests[:2]] == [4711, 4711]


def test_where_none_runs_and_the_port_is_any_the_service_must_be_named(
    fake: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_PORT", "0")
    ran = forebay("models", "ls")
    assert (ran.code, fake.requests) == (1, [])
    assert "name the service with --url or FOREBAY_URL" in ran.err
