"""One Java process: its start, its signals, its log, its end."""

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

from dev.kafka.install import Distribution, find_java, install

LEASH = Path(__file__).with_name("leash.py")
POLL_S = 0.02

QUICK = ("-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Serial collector, first compiler only: a start costs 3 s of processor time instead of 4.5, memory 150 MB. For tests:
under load the code is several times slower than what the second compiler makes of it."""


def archive_in(jars: Path) -> Path:
    """Where dev/kafka/archive.py leaves the classes that a start loads."""
    return jars / "classes.jsa"


class BrokerFailed(Exception):
    """A server did not become ready, or ended; the message holds the end of its log."""


class JavaProcess(abc.ABC):
    """A server out of `distribution` that keeps all it has in `folder`.

    The same object can be started again after `stop` or `kill`: on the same ports, with the same data. It dies with the
    Python process, whatever ends that. Methods may be called from any thread, by one at a time. `java_options` say how
    Java works: collector, compilers.
    """

    def __init__(
        self, distribution: Distribution, folder: Path, heap_mib: int, java_options: Sequence[str] = QUICK
    ) -> None:
        self.folder = folder
        self.log_file = folder / "process.log"
        self._distribution = distribution
        self._heap_mib = heap_mib
        self._java_options = java_options
        self._leash: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @abc.abstractmethod
    def _arguments(self) -> Sequence[str]:
        """Writes what the server reads at its start; returns its main class and arguments."""

    @abc.abstractmethod
    def _is_ready(self) -> bool:
        """Whether it answers now; takes at most a second."""

    @property
    def pid(self) -> int:
        """Of the Java process itself."""
        assert self._leash is not None, "it was not started"
        return self._pid

    @property
    def gone(self) -> bool:
        """It has ended, or was never started."""
        return self._leash is None or self._leash.poll() is not None

    def start(self, timeout_s: float = 60.0) -> None:
        """`spawn`, then `wait_ready`."""
        self.spawn()
        self.wait_ready(timeout_s)

    def spawn(self) -> None:
        """Start the process and return at once (the first time: after some preparation). Raises KafkaUnavailable."""
        assert self.gone, "it is running"
        self._close_pipes()
        self.folder.mkdir(parents=True, exist_ok=True)
        command = self._java(*self._arguments())
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
            raise BrokerFailed(f"{command[0]} could not be run:\n{self.log_tail()}")
        self._pid = int(said)

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Raises BrokerFailed when it ends, or does not answer in time."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if self.gone:
                raise BrokerFailed(f"ended with status {self.wait()}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerFailed(f"not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(POLL_S)

    def send_signal(self, number: signal.Signals) -> None:
        """Harmless when it is gone."""
        if not self.gone:
            assert self._leash is not None
            assert self._leash.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._leash.stdin.write(bytes([number]))

    def wait(self, timeout_s: float | None = None) -> int:
        """Its status once it has ended: 128 + the signal where one ended it. Raises subprocess.TimeoutExpired."""
        assert self._leash is not None, "it was not started"
        return self._leash.wait(timeout_s)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, a clean shutdown; its status. Raises subprocess.TimeoutExpired."""
        self.send_signal(signal.SIGTERM)
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

    def _java(self, *arguments: str) -> list[str]:
        jars = install(self._distribution)
        options = [f"-Xmx{self._heap_mib}m", *self._java_options, "-XX:-UsePerfData"]
        options += ["-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true"]
        if archive_in(jars).exists():
            options.append(f"-XX:SharedArchiveFile={archive_in(jars)}")
        return [
            find_java(self._distribution.name),
            *options,
            self._distribution.logging_option,
            "-cp",
            f"{jars}/*",
            *arguments,
        ]

    def _close_pipes(self) -> None:
        if self._leash is not None:
            for pipe in (self._leash.stdin, self._leash.stdout):
                assert pipe is not None
                pipe.close()
