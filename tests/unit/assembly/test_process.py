"""What a process needs around its roles: a secret of its own, ports that are free, a death at the right moment."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from forebay.assembly import ROLES, serve
from forebay.assembly.backends import open_backends
from forebay.assembly.process import arm_crash_point, id_secrets, listener, url_of
from forebay.core import crash
from forebay.core.errors import Misconfigured
from forebay.core.foreign import ForeignClocks
from forebay.settings import Settings

ECHO = Path(__file__).resolve().parents[2] / "models"


def settings(tmp_path: Path, **chosen: object) -> Settings:
    return Settings.model_validate(
        {"data_dir": tmp_path / "data", "models_dir": ECHO, "port": 0, "admin_port": 0, **chosen}
    )


# -------------------------------------------------------------------------------------------------------------- secret


def secrets_of(chosen: Settings) -> Sequence[bytes]:
    """As of a process with every role."""
    return id_secrets(chosen, make=True)


def test_a_data_folder_gets_a_secret_of_its_own(tmp_path: Path) -> None:
    [secret] = secrets_of(settings(tmp_path))
    [other] = secrets_of(settings(tmp_path / "other"))
    assert len(secret) == 64
    assert secret != other


def test_the_secret_of_a_data_folder_is_made_once(tmp_path: Path) -> None:
    assert secrets_of(settings(tmp_path)) == secrets_of(settings(tmp_path))


def test_all_who_start_at_once_have_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(secrets_of, [settings(tmp_path)] * 32))
    assert len({tuple(one) for one in found}) == 1


def test_making_a_secret_leaves_nothing_else(tmp_path: Path) -> None:
    secrets_of(settings(tmp_path))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret"]


def test_the_secret_of_a_data_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    secrets_of(settings(tmp_path))
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600


def test_a_secret_that_is_given_is_used_and_none_is_made(tmp_path: Path) -> None:
    given = settings(tmp_path, secrets=("first" * 5, "second" * 5))
    assert list(secrets_of(given)) == [b"first" * 5, b"second" * 5]
    assert not (tmp_path / "data").exists()


def test_a_secret_that_was_cut_short_is_refused_and_not_replaced(tmp_path: Path) -> None:
    """As a full disk or a power cut at the first start may leave it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret").touch()
    with pytest.raises(Misconfigured, match=r"data/secret"):
        secrets_of(settings(tmp_path))


def test_a_secret_is_flushed_before_it_has_its_name_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append((is_folder, (tmp_path / "data" / "secret").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    secrets_of(settings(tmp_path))
    assert flushed == [(False, False), (True, True)]


def test_roles_run_apart_are_given_a_secret_or_find_one(tmp_path: Path) -> None:
    apart = settings(tmp_path)
    with pytest.raises(Misconfigured, match=r"FOREBAY_SECRETS.*forebay up.*data/secret"):
        id_secrets(apart, make=False)
    assert not (tmp_path / "data").exists()
    assert list(id_secrets(settings(tmp_path, secrets=("first" * 5,)), make=False)) == [b"first" * 5]
    made = secrets_of(apart)
    assert id_secrets(apart, make=False) == made


# --------------------------------------------------------------------------------------------------------- data folder


def test_a_data_folder_that_is_made_is_for_its_owner_only(tmp_path: Path) -> None:
    secrets_of(settings(tmp_path))
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


async def test_the_database_is_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    async with open_backends(settings(tmp_path, secrets=("first" * 5,)), ROLES, (), clocks=ForeignClocks()):
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").glob("forebay.db*")}
    assert files.pop("forebay.db") == 0o600
    assert set(files.values()) <= {0o600}


REMEDY = r"data cannot be used: \w.*; let this user write to it, or name another .* data_dir \(FOREBAY_DATA_DIR"


def test_a_data_folder_that_is_a_file_is_named_with_the_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(Misconfigured, match="a file is in its place"):
        secrets_of(settings(tmp_path))


async def test_a_data_folder_that_is_a_file_is_no_queue_either(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(Misconfigured, match=REMEDY):
        async with open_backends(settings(tmp_path, secrets=("first" * 5,)), ROLES, (), clocks=ForeignClocks()):
            pass


def test_a_data_folder_that_cannot_be_written_to_is_named_with_the_setting_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)  # the user of the tests may be one who may write anywhere
    with pytest.raises(Misconfigured, match=REMEDY):
        secrets_of(settings(tmp_path))


async def test_a_database_that_is_a_folder_is_named_with_the_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "data" / "forebay.db").mkdir(parents=True)
    with pytest.raises(Misconfigured, match=r"forebay\.db cannot be used: .*data_dir \(FOREBAY_DATA_DIR"):
        async with open_backends(settings(tmp_path, secrets=("first" * 5,)), ROLES, (), clocks=ForeignClocks()):
            pass


# --------------------------------------------------------------------------------------------------------------- ports


def test_a_free_port_can_be_had() -> None:
    with listener("127.0.0.1", 0, "port") as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.mark.parametrize("setting", ["port", "admin_port"])
def test_a_port_in_use_is_named_with_the_setting_to_change(setting: str, taken: int) -> None:
    with (
        pytest.raises(Misconfigured, match=rf"127\.0\.0\.1:{taken}: Address already in use; set {setting} ") as caught,
        listener("127.0.0.1", taken, setting),
    ):
        pass
    assert f"FOREBAY_{setting.upper()}" in caught.value.message


def test_a_host_that_is_none_of_ours_is_named_with_the_setting_to_change() -> None:
    with pytest.raises(Misconfigured, match=r"cannot listen on 192\.0\.2\.1:0"), listener("192.0.2.1", 0, "port"):
        pass


def test_what_goes_wrong_while_listening_is_not_blamed_on_the_port() -> None:
    with pytest.raises(FileNotFoundError), listener("127.0.0.1", 0, "port"):
        os.stat("/no/such/file")


# ------------------------------------------------------------------------------------------------------------ serving


async def start(chosen: Settings) -> None:
    await serve(chosen, ROLES, on_ready=lambda addresses: None, on_stop=lambda: None)


@pytest.mark.parametrize("setting", ["port", "admin_port"])
async def test_a_service_does_not_start_on_a_port_in_use(setting: str, taken: int, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=f"set {setting} "):
        await start(settings(tmp_path, queue="memory://", store="memory://", blobs="memory://", **{setting: taken}))


async def test_one_role_alone_does_not_start_without_a_secret(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="FOREBAY_SECRETS"):
        await serve(settings(tmp_path), ("api",), on_ready=lambda addresses: None, on_stop=lambda: None)


async def test_a_model_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        await start(settings(tmp_path, models=("ecko",), trusted_models=("echo", "oracle")))
    assert caught.value.mistakes == ("ecko (there: echo, oracle)",)


async def test_what_the_models_folder_cannot_serve_is_logged_once_each(tmp_path: Path, taken: int) -> None:
    with capture_logs() as logged, pytest.raises(Misconfigured):
        await start(settings(tmp_path, trusted_models=("oracle", "ecko"), port=taken))
    events = [event for event in logged if event["event"] == "model.unavailable"]
    assert [event["model"] for event in events] == ["echo", "flaky", "moody", "spy", "talker", "troublesome"]
    assert "FOREBAY_TRUSTED_MODELS=echo" in events[0]["reason"]
    [unknown] = [event for event in logged if event["event"] == "trusted_model.not_found"]
    assert (unknown["model"], unknown["did_you_mean"], unknown["log_level"]) == ("ecko", "echo", "warning")
    assert unknown["known"] == ["echo", "flaky", "moody", "oracle", "spy", "talker", "troublesome"]


# -------------------------------------------------------------------------------------------------------------- signals

STOPS = """
import asyncio, os, signal, sys
from forebay.assembly.process import on_signals

async def main():
    stopping = asyncio.Event()
    with on_signals(stopping, lambda: print("stopping", flush=True), kept=sys.argv[1] == "kept"):
        os.kill(os.getpid(), signal.SIGINT)
        await stopping.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize(("queue", "words"), [("kept", "nothing accepted is lost"), ("memory", "jobs are lost")])
def test_a_second_signal_says_what_becomes_of_the_jobs(queue: str, words: str) -> None:
    command = [sys.executable, "-c", STOPS, queue]
    died = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (died.returncode, died.stdout) == (130, "stopping\n")
    assert died.stderr.startswith("killed by a second signal: ")
    assert words in died.stderr


# --------------------------------------------------------------------------------------------------------- crash points

DIES = """
import sys
from forebay.assembly.process import arm_crash_point
from forebay.core.crash import reach

arm_crash_point("here:2")
for place in ("here", "there", "there", "here"):
    print(place, flush=True)
    reach(place)
print("alive", flush=True)
"""


def test_a_process_dies_the_nth_time_that_it_reaches_its_crash_point() -> None:
    died = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, timeout=60, check=False)
    assert (died.returncode, died.stdout.split()) == (-9, ["here", "there", "there", "here"])


def test_a_process_without_a_crash_point_goes_on() -> None:
    arm_crash_point("")
    crash.reach("here")


# ----------------------------------------------------------------------------------------------------------- collector

CYCLES = """
import gc, weakref
from forebay.assembly.process import spare_collector

class Ring:
    def __init__(self): self.ring = self

start = [Ring() for _ in range(1000)]
spare_collector()
rings = [weakref.ref(Ring()) for _ in range(100_000)]
print(gc.get_freeze_count() > 1000, sum(ring() is not None for ring in rings) < 50_000)
"""


def test_what_the_start_made_is_looked_at_no_more_and_later_cycles_are_still_found() -> None:
    done = subprocess.run([sys.executable, "-c", CYCLES], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "True"], done.stderr
