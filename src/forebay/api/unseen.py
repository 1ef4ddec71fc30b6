"""What this process has accepted and the store may not have counted yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

SEEN_AFTER_S = 0.05
"""What was accepted so shortly before the store was asked, it may not show yet though nothing is behind."""

K = TypeVar("K", bound=Hashable)


class Unseen(Generic[K]):
    """By key. `ask` and then `answered` or `unanswered` go with each question to the store."""

    def __init__(self) -> None:
        self._since: Counter[K] = Counter()  # accepted since the store was asked last
        self._newest_at = float("-inf")
        self._before: deque[tuple[float, Counter[K]]] = deque()  # and before, the newest when; it may not know them
        self._known_to = float("-inf")
        self._total: Counter[K] = Counter()  # of all: a store that is an hour behind makes no submission slower

    def __getitem__(self, key: K) -> int:
        return self._total[key]

    def add(self, counts: Mapping[K, int], now: float) -> None:
        for key, count in counts.items():  # for each submission, and `update` takes several times as long
            self._since[key] += count
            self._total[key] += count
        self._newest_at = now

    def subtract(self, counts: Mapping[K, int]) -> None:
        """They were not accepted after all."""
        self._since.subtract(counts)
        self._total.subtract(counts)

    def ask(self, now: float, lag_s: float) -> None:
        """`lag_s`: by how much what the store is going to answer is behind the log."""
        self._before.append((self._newest_at, self._since))
        self._since = Counter()
        self._known_to = now - lag_s - SEEN_AFTER_S

    def answered(self) -> None:
        while self._before and self._before[0][0] <= self._known_to:
            self._total.subtract(self._before.popleft()[1])

    def unanswered(self) -> None:
        """All of it stays, in one: a store that is away for long costs no more memory."""
        unseen: Counter[K] = Counter()
        for _, accepted in self._before:
            unseen.update(accepted)
        self._before = deque([(self._newest_at, unseen)])
