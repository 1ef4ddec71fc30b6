"""How far a batch is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from forebay.cli.screen import visible

LINE_EVERY_S = 5.0
"""Where nobody looks."""


class Shown(ABC):
    """What a person sees."""

    @abstractmethod
    def sent(self, size_bytes: int) -> None:
        """So many bytes of the file are on their way."""

    @abstractmethod
    def counts(self, counts: Mapping[str, int]) -> None:
        """The batch's."""

    @abstractmethod
    def say(self, text: str) -> None:
        """One line that stays."""


@contextmanager
def showing(lines: int, size_bytes: int) -> Iterator[Shown]:
    """`lines` and `size_bytes` of the file that is sent."""
    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        yield Lines(size_bytes)
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        yield Bar(progress, lines, size_bytes)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s")


class Bar(Shown):
    def __init__(self, progress: Progress, lines: int, size_bytes: int) -> None:
        self._progress = progress
        self._lines = lines
        self._size_bytes = max(size_bytes, 1)
        self._task = progress.add_task("sending", total=lines, failed="")
        self._working = False

    def sent(self, size_bytes: int) -> None:
        self._progress.update(self._task, completed=self._lines * size_bytes // self._size_bytes)

    def counts(self, counts: Mapping[str, int]) -> None:
        if not self._working:
            self._working = True
            self._progress.reset(self._task, total=counts["total"], description="done")
        failed = failed_of(counts)
        self._progress.update(self._task, completed=ended_of(counts), failed=f"{failed} failed" if failed else "")

    def say(self, text: str) -> None:
        self._progress.console.print(visible(text), soft_wrap=True)


class Lines(Shown):
    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = max(size_bytes, 1)
        self._began_at = time.monotonic()
        self._told_at = self._began_at
        self._first: int | None = None

    def sent(self, size_bytes: int) -> None:
        if self._is_time():
            self.say(f"sent {100 * size_bytes // self._size_bytes} %")

    def counts(self, counts: Mapping[str, int]) -> None:
        ended, total = ended_of(counts), counts["total"]
        if self._first is None:
            self._first, self._began_at = ended, time.monotonic()
        if not self._is_time() and ended < total:
            return
        rate = (ended - self._first) / max(time.monotonic() - self._began_at, 1e-3)
        left = f", {(total - ended) / rate:.0f} s left" if rate and ended < total else ""
        self.say(f"done {ended} of {total}, {failed_of(counts)} failed, {rate:.0f}/s{left}")

    def say(self, text: str) -> None:
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._told_at < LINE_EVERY_S:
            return False
        self._told_at = now
        return True


def ended_of(counts: Mapping[str, int]) -> int:
    return counts["total"] - counts["queued"] - counts["running"]


def failed_of(counts: Mapping[str, int]) -> int:
    """All that ended without a result."""
    return ended_of(counts) - counts["succeeded"]
