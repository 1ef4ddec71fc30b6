"""How single jobs become batches. Told the time, never reads it."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class BatchPolicy(Struct, frozen=True, kw_only=True):
    """`max_queue_delay_s` is how long a batch that is not full waits for company while a runner is idle.

    Its default of 0 starts what is there at once: under load batches fill anyway while the runner is busy.
    The words are Triton's (`max_batch_size`, `max_queue_delay_microseconds`).
    """

    max_batch_size: int = 16
    max_queue_delay_s: float = 0.0


class Batcher(Generic[T]):
    """Gathers items in order of arrival into batches of at most `max_batch_size`.

    A batch that was set apart (`set_apart`) leaves before all others and exactly as it is: so that whatever it does
    to a runner can only be the doing of its members. One set apart as `alone` wants the whole process to itself: so
    that the same holds for what it does to the worker.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._apart: deque[tuple[list[T], bool]] = deque()
        self._waiting: deque[tuple[float, T]] = deque()

    def __len__(self) -> int:
        return sum(len(batch) for batch, _ in self._apart) + len(self._waiting)

    @property
    def full(self) -> bool:
        """A batch of the largest size waits."""
        return len(self._waiting) >= self._policy.max_batch_size

    @property
    def apart(self) -> bool:
        """The next batch to leave was set apart."""
        return bool(self._apart)

    @property
    def alone(self) -> bool:
        """The next batch to leave wants the process to itself."""
        return bool(self._apart) and self._apart[0][1]

    def add(self, item: T, now: float) -> None:
        self._waiting.append((now, item))

    def set_apart(self, batch: list[T], *, alone: bool = False) -> None:
        self._apart.append((batch, alone))

    def due_at(self) -> float | None:
        """When `take` will give a batch if nothing more is added; None while nothing waits. May lie in the past."""
        if self._apart:
            return float("-inf")
        if not self._waiting:
            return None
        since = self._waiting[0][0]
        return since if self.full else since + self._policy.max_queue_delay_s

    def take(self, now: float) -> list[T]:
        """The next batch, [] if none is due at `now`."""
        due = self.due_at()
        if due is None or due > now:
            return []
        if self._apart:
            return self._apart.popleft()[0]
        count = min(len(self._waiting), self._policy.max_batch_size)
        return [self._waiting.popleft()[1] for _ in range(count)]

    def drain(self) -> list[T]:
        """Everything that waits, for handing back at a stop."""
        items = [item for batch, _ in self._apart for item in batch] + [item for _, item in self._waiting]
        self._apart.clear()
        self._waiting.clear()
        return items


def halves(items: list[T]) -> list[list[T]]:
    """The two parts in which a failed batch runs again, to find the guilty item. [] for a batch of one."""
    middle = len(items) // 2
    return [items[:middle], items[middle:]] if middle else []
