"""What every benchmark prints around its figures."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

LIBRARIES = (
    "fastapi",
    "uvicorn",
    "uvloop",
    "apsw",
    "confluent-kafka",
    "asyncpg",
    "msgspec",
    "onnxruntime",
    "pillow",
    "numpy",
)


class Figure(Struct, frozen=True, kw_only=True):
    """One measured figure against its goal. `at_least` says on which side of the goal is good."""

    question: str
    measured: float
    goal: float
    at_least: bool
    unit: str = ""

    @property
    def reached(self) -> bool:
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "reached" if self.reached else "NOT reached"
        return f"{self.question}: {self.measured:.3g}{self.unit} (goal {sign} {self.goal:g}{self.unit}) {verdict}"


def machine() -> str:
    """CPU, cores, memory, kernel, versions: on one line each."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    libraries = " ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}\n"
        f"Python {platform.python_version()} {libraries}"
    )


def spread(values: Sequence[float]) -> str:
    """`median (lowest-highest)`"""
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"
