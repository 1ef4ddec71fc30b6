"""One server process: its start, its signals, its log, its end. It dies with the Python process, whatever ends that."""

from __future__ import annotations

import abc
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LEASH = Path(__file__).with_name("leash.py")
POLL_S = 0.02
STOP_WITHIN_S = 30.0


class ServerFailed(Exception):
    """It did not become ready, or ended; the message holds the end of its log."""


class ServerProcess(abc.ABC):
    """A server that keeps all it has in `folder`.

    The same object can be started again after `stop` or `kill`: on the same port, with the same data. Methods may be
    called from any thread, by one at a time.
    """

    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_file = folder / "process.log"
        self._leash: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @abc.abstractmethod
    def _command(self) -> Sequence[str]:
        """Prepares what the server needs at its start; returns the command."""

    @abc.abstractmethod
    def _is_ready(self) -> bool:
        """Whether it answers now; takes at most a second."""

    @property
    def pid(self) -> int:
        """Of the server itself."""
        assert self._leash is not None, "it was not started"
        return self._pid

    @property
    def gone(self) -> bool:
        """It has ended, or was never started."""
        return self._leash is None or self._leash.poll() is not None

    def start(self, timeout_s: float = 60.0) -> None:
        """`spawn`, then `wait_ready`; whatever they raise, nothing is left running."""
        try:
            self.spawn()
            self.wait_ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def spawn(self) -> None:
        """Start the process and return at once (the first time: after some preparation)."""
        assert self.gone, "it is running"
        self._close_pipes()
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self._command()
        with open(self.log_file, "ab") as log:
            self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C is ours, not the server's
            )
        assert self._leash.stdout is not None
        said = self._leash.stdout.readline()
        if not said:
            raise ServerFailed(f"{command[0]} could not be run:\n{self.log_tail()}")
        self._pid = int(said)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Raises ServerFailed when it ends, or does not answer in time."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if self.gone:
                raise ServerFailed(f"ended with status {self.wait()}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(POLL_S)

    def send_signal(self, number: signal.Signals) -> None:
        """Harmless when it is gone. It takes effect soon, SIGSTOP before this returns."""
        if not self.gone:
            assert self._leash is not None
            assert self._leash.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the leash has ended, and its process with it
                self._leash.stdin.write(bytes([number]))
            if number == signal.SIGSTOP:
                self._until_it_stands()

    def _until_it_stands(self) -> None:
        deadline = time.monotonic() + STOP_WITHIN_S
        while not self.gone:
            state = subprocess.run(["ps", "-o", "state=", "-p", str(self.pid)], capture_output=True, text=True).stdout
            if state.startswith("T"):
                return
            if time.monotonic() > deadline:
                raise ServerFailed(f"it does not stand still after {STOP_WITHIN_S:g} s, its state is {state.strip()!r}")
            time.sleep(POLL_S)

    def wait(self, timeout_s: float | None = None) -> int:
        """Its status once it has ended: 128 + the signal where one ended it. Raises subprocess.TimeoutExpired."""
        assert self._leash is not None, "it was not started"
        return self._leash.wait(timeout_s)

    def stop(self, timeout_s: float = 30.0) -> int:
        """A clean shutdown; its status. Raises subprocess.TimeoutExpired. Once it is gone, a repetition is harmless."""
        self.send_signal(self.stop_signal)
        status = self.wait(timeout_s)
        self._close_pipes()
        return status

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Harmless when it is gone already, or was never started."""
        if self._leash is not None:
            self.send_signal(signal.SIGKILL)
            self._leash.wait()
            self._close_pipes()

    def bounce(self, *, hard: bool = False, timeout_s: float = 60.0) -> None:
        """`stop` (`hard`: `kill`), then `start`."""
        if hard:
            self.kill()
        else:
            self.stop(timeout_s)
        self.start(timeout_s)

    def log_tail(self, characters: int = 4000) -> str:
        return self.log_file.read_text(errors="replace")[-characters:] if self.log_file.exists() else ""

    def _close_pipes(self) -> None:
        if self._leash is not None:
            for pipe in (self._leash.stdin, self._leash.stdout):
                assert pipe is not None
                pipe.close()


def until_interrupted(server: ServerProcess, name: str) -> None:
    """Waits for Ctrl-C, then stops the server cleanly, or after STOP_WITHIN_S at once. Raises ServerFailed when it ends
    by itself."""
    try:
        status = server.wait()
    except KeyboardInterrupt:
        print(f"{name}: stopping ...", file=sys.stderr)
        try:
            server.stop(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            server.kill()
        return
    raise ServerFailed(f"it ended by itself with status {status}:\n{server.log_tail()}")


def interrupt_by_signals() -> None:
    """SIGINT and SIGTERM raise KeyboardInterrupt; a shell's background job starts with SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
