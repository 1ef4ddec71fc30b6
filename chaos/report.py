"""What a storm is asked to do and what it hands back; one screen of text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from chaos.rules import Least
from chaos.stage import Stage
from chaos.verdict import Verdict


class Order(Struct, frozen=True, kw_only=True):
    """`short`: as little as still proves something, for a check on every change. `planted`: the bug to run with, which
    the storm must then find (chaos/planted). `strike`: the only kind of process that `kills` hits, "" for any."""

    folder: Path
    stage: Stage
    seed: int
    short: bool = False
    planted: str = ""
    strike: str = ""


class Part(Struct, frozen=True):
    """One judged run of a storm."""

    title: str
    verdict: Verdict
    least: Least
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return not self.verdict.broken and not self.vacuous

    @property
    def vacuous(self) -> list[str]:
        return self.verdict.vacuous(self.least)

    def __str__(self) -> str:
        lines = [f"{self.title}  seconds={self.seconds:.0f}", str(self.verdict)]
        if self.vacuous:
            lines.append(f"VACUOUS, too little happened to prove anything: {'; '.join(self.vacuous)}")
        if self.verdict.broken:
            lines.append(f"BROKEN PROMISES: {self.verdict.broken}")
        if self.good:
            lines.append("every promise held")
        return "\n".join(lines)


class Line(Struct, frozen=True):
    """Of the table in the end: one part, or one planted bug."""

    storm: str
    title: str
    accepted: int
    faults: int
    reruns: int
    verdict: str
    seconds: float


HEAD = ("storm", "part", "accepted", "faults", "reruns", "verdict", "seconds")


def line_of(storm: str, part: Part) -> Line:
    """`held`, or what did not."""
    wrong = [f"{name}={count}" for name, count in part.verdict.broken.items()]
    if part.vacuous:
        wrong.append("vacuous")
    counts = part.verdict
    return Line(
        storm, part.title, counts.accepted, counts.faults, counts.reruns, ", ".join(wrong) or "held", part.seconds
    )


def table(lines: Sequence[Line], seconds: float) -> str:
    """One row each, and what all of it took."""
    rows = [HEAD, *((*(str(one) for one in _fields(line)[:-1]), f"{line.seconds:.0f}") for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*shown, f"total: {seconds:.0f} s"])


def _fields(line: Line) -> tuple[object, ...]:
    return tuple(getattr(line, name) for name in line.__struct_fields__)
