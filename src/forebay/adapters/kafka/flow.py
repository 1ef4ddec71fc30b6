"""Which partitions are to be paused. Decides, and touches nothing."""

from __future__ import annotations

from forebay.adapters.kafka.entries import Place
from forebay.adapters.kafka.hand import Hand

PRESSED_S = 1.0
"""Back-pressure for so long is met with a pause. Not at once: a pause drops what was fetched, and the first record
after it takes half a second to a second to come (measured; Sentry found the same, getsentry/snuba#4774)."""


class Flow:
    """Everything is paused after a while in which nothing more was wanted, until half of what was there is done; else
    the partitions that have no room in their commit's metadata."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._pressed_since: float | None = None
        self._stopped_at: int | None = None  # how much there was

    @property
    def stopped(self) -> bool:
        return self._stopped_at is not None

    def paused(self, now: float) -> set[Place]:
        """`now` is monotonic."""
        hand = self._hand
        if self._stopped_at is not None:
            if hand.hungry or 2 * hand.load <= self._stopped_at:
                self._stopped_at = self._pressed_since = None
        elif hand.wanted > 0 or not hand.load:
            self._pressed_since = None
        elif self._pressed_since is None:
            self._pressed_since = now
        elif now >= self._pressed_since + PRESSED_S:
            self._stopped_at = hand.load
        return set(hand.places) if self.stopped else hand.stashing()
