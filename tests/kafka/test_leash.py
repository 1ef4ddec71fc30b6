"""No server outlives the test run that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev.process import LEASH

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Returns once the command says that it is up; its standard output and error go to our `stderr` pipe."""
    process = subprocess.Popen(
        [sys.executable, str(LEASH), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    assert process.stderr is not None
    assert process.stderr.readline() == b"up\n"
    return process


def test_it_is_killed_when_its_starter_goes_away() -> None:
    with start(SLEEPER) as process:
        assert process.stdin is not None
        process.stdin.close()  # as the kernel does for a starter that died
        assert process.wait(30) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_gets_the_signals_that_its_starter_sends(number: signal.Signals) -> None:
    with start(SLEEPER) as process:
        assert process.stdin is not None
        process.stdin.write(bytes([number]))
        process.stdin.flush()
        assert process.wait(30) == 128 + number


def test_its_status_is_handed_on() -> None:
    with start([sys.executable, "-c", "print('up'); raise SystemExit(7)"]) as process:
        assert process.wait(30) == 7


def test_a_killed_starter_leaves_nothing_behind(tmp_path: Path) -> None:
    program = tmp_path / "starter.py"
    program.write_text(
        "import subprocess, sys, time\n"
        "leash = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "time.sleep(600)\n"
    )
    starter = subprocess.Popen([sys.executable, str(program), str(LEASH), *SLEEPER], stderr=subprocess.PIPE)
    with starter:
        assert starter.stderr is not None
        assert starter.stderr.readline() == b"up\n"
        starter.kill()
        assert starter.stderr.read() == b""  # end of file: the sleeper, which holds the pipe as well, is gone
