"""Programs that a benchmark starts: each with a log, ended with all that it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.kafka.ports import HOST

POLL_S = 0.02
READY_WITHIN_S = 60.0


class ProgramFailed(Exception):
    """It did not become ready; the message holds the end of its log."""


class Program:
    """A process and, in a group of its own, what it starts. Use as a context manager: SIGKILL to all at the end."""

    def __init__(
        self,
        command: Sequence[str],
        log_file: Path,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._command = command
        self._log_file = log_file
        self._environ = {**os.environ, **(environ or {})}
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with open(self._log_file, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environ,
                cwd=self._cwd,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    def until_listening(self, port: int) -> None:
        """Raises ProgramFailed when it ends, or takes too long."""
        self._until(lambda: _listens(port))

    def until_logged(self, words: bytes) -> None:
        """Until its log holds `words`. Raises ProgramFailed."""
        self._until(lambda: words in self._log_file.read_bytes())

    def _until(self, ready: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self._log_file.read_text(errors="replace")[-4000:]
                raise ProgramFailed(f"{' '.join(self._command)} (status {self._process.poll()}) is not ready:\n{log}")
            time.sleep(POLL_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
