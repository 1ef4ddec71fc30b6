"""The time of a log that one process writes. What expires or is deleted goes by it, and nobody can set it."""

from __future__ import annotations

from collections.abc import Callable


class LogClock:
    """Seconds since the epoch. It begins at the wall clock's time, or at `newest`, the log's last, where that is later;
    then it goes on as time passes (`elapsed`), whatever the wall clock is set to."""

    def __init__(self, newest: float, *, wall: Callable[[], float], elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._ahead = max(wall(), newest) - elapsed()

    def now(self) -> float:
        return self._elapsed() + self._ahead
