"""A real service in a process of its own, for tests and benchmarks that start, stop and kill it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

READY_POLL_S = 0.01
COMMAND_WITHIN_S = 60.0
ENTRY = ("-m", "forebay")


class ServiceFailed(Exception):
    """The service did not become ready; the message holds the end of its log."""


def environ_of(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `settings` (lower case, without prefix) in place of all that are set in it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    return own | {f"FOREBAY_{name.upper()}": value for name, value in settings.items()}


def run_command(
    *arguments: str, settings: Mapping[str, str], timeout_s: float = COMMAND_WITHIN_S, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`forebay ARGUMENTS` in a process of its own, with `settings` as for `environ_of`. Raises
    subprocess.TimeoutExpired."""
    command = [sys.executable, *ENTRY, *arguments]
    return subprocess.run(command, env=environ_of(settings), cwd=cwd, capture_output=True, text=True, timeout=timeout_s)


def output_of(*arguments: str, settings: Mapping[str, str], timeout_s: float = COMMAND_WITHIN_S) -> str:
    """What `run_command` printed. Raises ServiceFailed unless it ended well."""
    done = run_command(*arguments, settings=settings, timeout_s=timeout_s)
    if done.returncode:
        raise ServiceFailed(f"forebay {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class RunningService:
    """`forebay up` (or `forebay run ROLE...`) on free ports of the loopback interface, on a data folder of the
    caller's.

    `settings` are environment variables without their prefix, in lower case. The same object can be started again after
    `kill` or `stop`: it then serves the same data folder, at another port unless `settings` name one. `entry` are
    Python's arguments before the command: another program that stands in for `-m forebay`.
    """

    def __init__(
        self,
        data_dir: Path,
        models_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        roles: Sequence[str] = (),
        entry: Sequence[str] = ENTRY,
    ) -> None:
        self._data_dir = data_dir
        self._entry = list(entry)
        self._command = ["run", *roles] if roles else ["up"]
        own = {"port": "0", "admin_port": "0", "log_format": "json"}
        places = {"data_dir": str(data_dir), "models_dir": str(models_dir)}
        self._environ = environ_of({**own, **places, **(settings or {})})
        self._ready_file = data_dir / "ready.json"
        self._process: subprocess.Popen[bytes] | None = None
        self.log_file = data_dir / "service.log"
        self.url = ""
        self.admin_url = ""

    def __enter__(self) -> RunningService:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the service was not started"
        return self._process.pid

    @property
    def gone(self) -> bool:
        """The process has ended, or was never started."""
        return self._process is None or self._process.poll() is not None

    def without(self, setting: str) -> None:
        """From the next start on."""
        del self._environ[f"FOREBAY_{setting.upper()}"]

    def spawn(self) -> None:
        """Start the process and return at once."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._ready_file.unlink(missing_ok=True)
        with open(self.log_file, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._entry, *self._command, "--ready-file", str(self._ready_file)],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def start(self, timeout_s: float = 60.0) -> None:
        """`spawn`, then wait until it accepts work and its models are loaded or known to be unavailable."""
        self.spawn()
        self.wait_ready(timeout_s)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Raises ServiceFailed when the process ends, or is not ready in time."""
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while not self._ready_file.exists():
            if self._process.poll() is not None:
                raise ServiceFailed(f"exited with {self._process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServiceFailed(f"not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(READY_POLL_S)
        ready = json.loads(self._ready_file.read_text())
        self.url, self.admin_url = ready["api_url"], ready["admin_url"]

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Harmless when it is gone already."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended in this moment
                self._process.kill()
            self._process.wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit status. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status once it has ended by itself. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing. Harmless when it is gone."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)  # which does nothing once it was seen to have ended

    def log_tail(self, characters: int = 4000) -> str:
        return self.log_file.read_text(errors="replace")[-characters:] if self.log_file.exists() else ""
