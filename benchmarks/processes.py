"""What processes and all that they start cost: processor time and memory, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def tree(root: int) -> list[int]:
    """The process and all its descendants that are alive."""
    children = defaultdict(list)
    for pid in _all():
        with contextlib.suppress(OSError):  # it ended in this moment
            children[int(_stat(pid)[1])].append(pid)
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def cpu_s(roots: Iterable[int]) -> float:
    """User and system seconds of these processes and of all their descendants, those that ended and were waited for
    included."""
    seconds = 0.0
    for pid in {pid for root in roots for pid in tree(root)}:
        with contextlib.suppress(OSError):  # it ended in this moment
            seconds += sum(int(ticks) for ticks in _stat(pid)[11:15]) / TICKS_PER_S
    return seconds


def cpu_by_role(roles: Mapping[str, int]) -> dict[str, float]:
    """`cpu_s` of each process tree, by name."""
    return {role: cpu_s([pid]) for role, pid in roles.items()}


def resident_mb(pid: int) -> float:
    """Of this process alone."""
    status = (PROC / str(pid) / "status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _all() -> Iterator[int]:
    return (int(path.name) for path in PROC.iterdir() if path.name.isdigit())


def _stat(pid: int) -> list[str]:
    """From the third field on: what stands before it may hold spaces."""
    return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
