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
    def counts(self, counts: Mapping[str, int], *, whole: bool) -> None:
        """The batch's; not `whole` while its file is being sent."""

    @abstractmethod
    def say(self, text: str) -> None:
        """One line that stays."""


@contextmanager
def showing(lines: int) -> Iterator[Shown]:
    """`lines` of the file that is sent."""
    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    if console.is_terminal:
        with bar_on(console, lines) as shown:
            yield shown
    else:
        yield Lines(lines)


@contextmanager
def bar_on(console: Console, lines: int) -> Iterator[Shown]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, lines)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s")


class Bar(Shown):
    def __init__(self, progress: Progress, lines: int) -> None:
        self._progress = progress
        self._lines = lines
        self._task = progress.add_task("done", total=lines, failed="")

    def counts(self, counts: Mapping[str, int], *, whole: bool) -> None:
        failed = failed_of(counts)
        self._progress.update(
            self._task,
            completed=ended_of(counts),
            total=counts["total"] if whole else self._lines,
            failed=f"{failed} failed" if failed else "",
        )

    def say(self, text: str) -> None:
        self._progress.console.print(visible(text), soft_wrap=True)


class Lines(Shown):
    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._began_at = self._told_at = time.monotonic()
        self._first: int | None = None

    def counts(self, counts: Mapping[str, int], *, whole: bool) -> None:
        ended, total = ended_of(counts), counts["total"] if whole else self._lines
        if self._first is None:
            self._first, self._began_at = ended, time.monotonic()
        if not self._is_time() and not (whole and ended == total):
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
