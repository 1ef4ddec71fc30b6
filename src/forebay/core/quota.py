"""How many jobs a tenant may have accepted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msgspec import Struct

MINUTE_S = 60.0
DAY_S = 86_400.0


class Quota(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one tenant; None where nothing is limited.

    `jobs_per_minute`: in any 60 s. `jobs_per_day`: since midnight UTC. `jobs_outstanding`: accepted and not final yet.
    """

    jobs_per_minute: int | None = None
    jobs_per_day: int | None = None
    jobs_outstanding: int | None = None

    @property
    def limits(self) -> Mapping[str, int]:
        """By name, those that there are."""
        return {name: limit for name in self.__struct_fields__ if (limit := getattr(self, name)) is not None}

    def or_else(self, other: Quota) -> Quota:
        """What `other` says, where this one says nothing."""
        return Quota(**{**other.limits, **self.limits})


NO_QUOTA = Quota()


class Use(Struct, frozen=True, kw_only=True):
    """What of a quota is used, in the same words."""

    jobs_per_minute: int = 0
    jobs_per_day: int = 0
    jobs_outstanding: int = 0


class Window:
    """How many there were in the last minute, and since midnight UTC, at the times that one process noted. It keeps two
    numbers for each second, however many there were."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self._minute = 0
        self._today = 0
        self._day = 0

    def add(self, count: int, now: float) -> None:
        """`count` is negative for what did not come about. `now` is in seconds since the epoch; where the clock was
        set back, all that comes stands in the newest second."""
        self._forget(now)
        second = int(now)
        if self._seconds and self._seconds[-1][0] >= second:
            newest, there = self._seconds.pop()
            self._seconds.append((newest, there + count))
        else:
            self._seconds.append((second, count))
        self._minute += count
        self._day += count

    def minute(self, now: float) -> int:
        self._forget(now)
        return self._minute

    def day(self, now: float) -> int:
        self._forget(now)
        return self._day

    def room_in_s(self, now: float) -> float:
        """Until the first of those that count in the minute no longer do; 0.0 where there are none."""
        self._forget(now)
        return max(0.0, self._seconds[0][0] + 1 + MINUTE_S - now) if self._seconds else 0.0

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] + 1 <= now - MINUTE_S:
            self._minute -= self._seconds.popleft()[1]
        if (today := int(now // DAY_S)) > self._today:
            self._today, self._day = today, 0
