"""What a storm is asked to do and what it hands back; one screen of text."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from chaos.rules import Least
from chaos.stage import Stage
from chaos.verdict import Verdict


class Order(Struct, frozen=True, kw_only=True):
    """`short`: as little as still proves something, for a check on every change. `planted`: the bug to run with, which
    the storm must then find (chaos/planted)."""

    folder: Path
    stage: Stage
    seed: int
    short: bool = False
    planted: str = ""


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
