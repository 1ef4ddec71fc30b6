"""One Java process."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path

from dev.kafka.install import Distribution, find_java, install
from dev.process import ServerFailed, ServerProcess

BrokerFailed = ServerFailed

QUICK = ("-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Serial collector, first compiler only: a start costs 3 s of processor time instead of 4.5, memory 150 MB. For tests:
under load the code is several times slower than what the second compiler makes of it."""


def archive_in(jars: Path) -> Path:
    """Where dev/kafka/archive.py leaves the classes that a start loads."""
    return jars / "classes.jsa"


class JavaProcess(ServerProcess):
    """A server out of `distribution`. `java_options` say how Java works: collector, compilers."""

    def __init__(
        self, distribution: Distribution, folder: Path, heap_mib: int, java_options: Sequence[str] = QUICK
    ) -> None:
        super().__init__(folder)
        self._distribution = distribution
        self._heap_mib = heap_mib
        self._java_options = java_options

    @abc.abstractmethod
    def _arguments(self) -> Sequence[str]:
        """Writes what the server reads at its start; returns its main class and arguments."""

    def _command(self) -> Sequence[str]:
        return self._java(*self._arguments())

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
