"""Storms that go on in a process of their own beside the others."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Self

PATIENTS = ("long_poll", "poison", "copies")
"""They wait more than they work, or are short, and time no answer."""

TIMED = "broker"
"""It times answers, so everything else is over before it begins."""

ENDS_WITHIN_S = 60.0


class Beside:
    """Runs these storms, with grounds of their own, while the block goes on; leaving it waits for their end, leaving it
    by an error ends them. Without storms it does nothing."""

    def __init__(self, storms: Sequence[str], seed: int) -> None:
        self._storms = storms
        self._seed = seed
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._storms:
            command = [sys.executable, "-m", "chaos", "--short", "--seed", str(self._seed), *self._storms]
            self._process = subprocess.Popen(command, stdout=self._said, stderr=subprocess.STDOUT)
        return self

    def ended_well(self) -> bool:
        """Waits for their end and prints what they said, once; whether all was as it must be."""
        if self._process is None:
            return True
        status = self._process.wait()
        self._process = None
        self._said.seek(0)
        print(f"\n{self._said.read().decode().strip()}", flush=True)
        return status == 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:  # as Ctrl-C would: what it started it also ends
            self._process.send_signal(signal.SIGINT)
            self._process.wait(ENDS_WITHIN_S)
        self._said.close()
