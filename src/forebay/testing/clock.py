"""Time that a test moves."""

from __future__ import annotations


class HandClock:
    """Seconds since the epoch, as `time.time`, standing still until told."""

    def __init__(self, now: float = 1_764_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
