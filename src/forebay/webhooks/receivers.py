"""How much each receiver is trusted with: so that a slow one, or a dead one, delays nobody else. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

WINDOW_AT_FIRST = 2
WINDOW_MOST = 32
"""Requests to one receiver at a time: two until it has answered well, one more for each good answer, half as many for
each that was none."""

FAILURES_MOST = 5
"""In a row, after which a receiver is left alone for a while."""

REST_S = 5.0
REST_MOST_S = 300.0
"""The first rest, and the longest: each failure after a rest doubles it, and one delivery at a time is tried then."""

KNOWN_MOST = 50_000


class Receiver:
    """What one process knows of a receiver."""

    def __init__(self) -> None:
        self.busy = 0
        self.window = WINDOW_AT_FIRST
        self.failures = 0
        self.rests_until = 0.0
        self.proven = False

    @property
    def room(self) -> int:
        return self.window - self.busy


class Receivers:
    """By their names (`WebhookDelivery.receiver`). `random` gives numbers in [0, 1). Times are the caller's."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._known: dict[str, Receiver] = {}

    def begin(self, name: str) -> None:
        self._of(name).busy += 1

    def succeeded(self, name: str) -> None:
        receiver = self._ended(name)
        receiver.window = min(WINDOW_MOST, receiver.window + 1)
        receiver.failures, receiver.rests_until, receiver.proven = 0, 0.0, True

    def refused(self, name: str) -> None:
        """It answered, and did not want this one: that says nothing of others."""
        self._ended(name)

    def failed(self, name: str, now: float, retry_after_s: float = 0.0) -> None:
        """It did not answer, or could not do its work, or asked for a rest of `retry_after_s`."""
        receiver = self._ended(name)
        receiver.failures += 1
        receiver.window, receiver.proven = max(1, receiver.window // 2), False
        if receiver.failures >= FAILURES_MOST:
            doubled = REST_S * 2.0 ** min(receiver.failures - FAILURES_MOST, 10)
            rest_s = min(REST_MOST_S, doubled) * (0.5 + self._random() / 2)
            receiver.rests_until = max(receiver.rests_until, now + rest_s)
        if retry_after_s > 0:
            receiver.rests_until = max(receiver.rests_until, now + min(retry_after_s, REST_MOST_S))

    def full(self, now: float) -> Collection[str]:
        """Who is to get nothing more now."""
        return [name for name, one in self._known.items() if one.room <= 0 or one.rests_until > now]

    def ready(self, now: float) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Who answered well last, and how much room each has: half of its window or more, so that a claim is worth it.
        Those with little room first, and apart, since all of one claim get as many as the least of them may."""
        little: dict[str, int] = {}
        much: dict[str, int] = {}
        for name, one in self._known.items():
            if one.proven and one.room * 2 >= one.window and one.rests_until <= now:
                (much if one.room * 2 >= WINDOW_MOST else little)[name] = one.room
        return little, much

    def not_new(self, now: float) -> Collection[str]:
        """Who answered well last, or is to get nothing more now."""
        return {*self.full(now), *(name for name, one in self._known.items() if one.proven)}

    @property
    def doubtful(self) -> int:
        """How many requests are under way to receivers that did not answer well last."""
        return sum(one.busy for one in self._known.values() if not one.proven)

    def _of(self, name: str) -> Receiver:
        receiver = self._known.pop(name, None) or Receiver()
        self._known[name] = receiver
        if len(self._known) > KNOWN_MOST:
            oldest = next((name for name, one in self._known.items() if not one.busy), name)
            if oldest != name:
                del self._known[oldest]
        return receiver

    def _ended(self, name: str) -> Receiver:
        receiver = self._of(name)
        receiver.busy -= 1
        return receiver
