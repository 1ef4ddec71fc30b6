"""The batcher against a naive one that keeps a list and looks at all of it."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay.core.batching import Batcher, BatchPolicy, halves


class BatcherMachine(RuleBasedStateMachine):
    @initialize(size=st.integers(1, 5), delay_s=st.sampled_from([0.0, 0.5, 3.0]))
    def nothing_waits(self, size: int, delay_s: float) -> None:
        self.size, self.delay_s = size, delay_s
        self.batcher: Batcher[int] = Batcher(BatchPolicy(max_batch_size=size, max_queue_delay_s=delay_s))
        self.now = 1000.0
        self.apart: list[list[int]] = []
        self.waiting: list[tuple[float, int]] = []
        self.added = 0
        self.left: list[int] = []

    @rule()
    def add(self) -> None:
        self.batcher.add(self.added, self.now)
        self.waiting.append((self.now, self.added))
        self.added += 1

    @rule(count=st.integers(1, 7))
    def set_apart(self, count: int) -> None:
        """Also more than a batch may hold: what was set apart leaves as it is."""
        batch = list(range(self.added, self.added + count))
        self.batcher.set_apart(list(batch))
        self.apart.append(batch)
        self.added += count

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        batch = self.batcher.take(self.now)
        assert batch == self.expected()
        self.left += batch
        self.apart = [one for one in self.apart if one != batch]
        self.waiting = [(at, item) for at, item in self.waiting if item not in batch]

    @rule()
    def take_when_due(self) -> None:
        """Whoever waits until `due_at` gets a batch then, and none before."""
        due = self.batcher.due_at()
        if due is not None and due > self.now:
            assert self.batcher.take(due - 0.001) == []
            self.now = due
            assert self.expected()
            self.take()

    @rule()
    def drain(self) -> None:
        drained = self.batcher.drain()
        assert drained == self.all_waiting()
        self.left += drained
        self.apart, self.waiting = [], []
        assert self.batcher.due_at() is None

    def expected(self) -> list[int]:
        if self.apart:
            return self.apart[0]
        old = any(at + self.delay_s <= self.now for at, _ in self.waiting)
        if old or len(self.waiting) >= self.size:
            return [item for _, item in self.waiting[: self.size]]
        return []

    def all_waiting(self) -> list[int]:
        return [item for batch in self.apart for item in batch] + [item for _, item in self.waiting]

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        waiting = self.all_waiting()
        assert sorted(self.left + waiting) == list(range(self.added))
        assert len(self.batcher) == len(waiting)

    @invariant()
    def it_is_full_when_waiting_longer_gains_nothing(self) -> None:
        assert self.batcher.full == (len(self.waiting) >= self.size)
        assert self.batcher.apart == bool(self.apart)


TestBatcher = BatcherMachine.TestCase


@pytest.mark.parametrize("count", range(10))
def test_halves_hold_all_items_in_order_and_end_at_one(count: int) -> None:
    items = list(range(count))
    parts = halves(items)
    if count < 2:
        assert parts == []
    else:
        assert parts[0] + parts[1] == items
        assert all(0 < len(part) < count for part in parts)
