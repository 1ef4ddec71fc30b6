"""What one worker knows of itself: how fast it gets on, how often it was restarted, whether a backend is away."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import fmean, pstdev
from time import monotonic

from msgspec import Struct

from forebay.core.lanes import Lane
from forebay.core.pace import Pace

BATCHES = 50
"""So many recent batches are remembered: enough for a rate to some percent, few enough to follow a change of load."""

LAST_S = 60.0
"""How far back the jobs of each lane are counted, whether there was work or not."""

AWAY_FOR_S = 5.0
"""A backend that failed so recently is away: it is tried again each second."""


FEW = 10
"""So many batches that followed each other at once tell what a worker manages; before, all have to do."""


class _Predicted(Struct, frozen=True):
    jobs: int
    busy_s: float  # time since the last one, as far as replicas were at work: half of two count half
    followed: bool  # another was in hand already when the one before it ended


class Timed:
    """A batch that is being timed. Without `predicted` it came to nothing: its time counts, its jobs do not."""

    def __init__(self, predicted: Callable[[Counter[str]], None]) -> None:
        self._predicted = predicted
        self.over = False

    def predicted(self, lanes: Iterable[Lane]) -> None:
        """Its runner is free again, and it has outcomes; a lane for each of its jobs."""
        self.over = True
        self._predicted(Counter(lane.value for lane in lanes))


class Vitals:
    """Of a worker with so many `replicas`, which each can run a batch at once. `clock` is a monotonic one."""

    def __init__(self, replicas: int = 1, clock: Callable[[], float] = monotonic) -> None:
        self._replicas = replicas
        self._clock = clock
        self._since = clock()
        self._running = 0
        self._busy_s = 0.0  # not handed to a batch that ended yet
        self._passed_at = self._since
        self._full = False  # every replica had work when the last batch ended
        self._predicted: deque[_Predicted] = deque(maxlen=BATCHES)
        self._services: deque[float] = deque(maxlen=BATCHES)
        self._finished: deque[tuple[float, Counter[str]]] = deque()  # by second
        self._failed_at: float | None = None
        self.restarts = 0
        """How often a runner, or the worker itself, has died and was begun again."""

    def backend_failed(self) -> None:
        """The queue, the log or the blob store could not be reached just now."""
        self._failed_at = self._clock()

    @property
    def away(self) -> bool:
        """Whether a backend is away."""
        return self._failed_at is not None and self._clock() - self._failed_at < AWAY_FOR_S

    @contextmanager
    def batch(self) -> Iterator[Timed]:
        """Time a batch, from when it has a runner until its outcomes are published. Several may run at once."""
        began = self._pass()
        self._running += 1
        timed = Timed(self._end)
        try:
            yield timed
        finally:
            now = self._pass()
            if timed.over:
                self._services.append(now - began)
            else:
                self._running -= 1

    def _end(self, lanes: Counter[str]) -> None:
        now = self._pass()
        self._predicted.append(_Predicted(lanes.total(), self._busy_s, self._full))
        self._busy_s = 0.0
        self._running -= 1
        self._full = self._running >= self._replicas
        if not self._finished or self._finished[-1][0] < now - 1.0:
            self._finished.append((now, Counter()))
        self._finished[-1][1].update(lanes)

    def _pass(self) -> float:
        now = self._clock()
        self._busy_s += (now - self._passed_at) * min(self._running, self._replicas) / self._replicas
        self._passed_at = now
        return now

    def pace(self) -> Pace | None:
        """None until a batch has ended."""
        followed = [batch for batch in self._predicted if batch.followed]
        measured = followed if len(followed) >= FEW else list(self._predicted)
        busy_s = sum(batch.busy_s for batch in measured)
        if busy_s <= 0.0 or not self._services:
            return None
        jobs = sum(batch.jobs for batch in measured)
        now, mean = self._clock(), fmean(self._services)
        while self._finished and self._finished[0][0] < now - LAST_S:
            self._finished.popleft()
        over_s = max(1.0, min(LAST_S, now - self._since))
        finished = sum((lanes for _, lanes in self._finished), Counter[str]())
        return Pace(
            jobs_per_s=jobs / busy_s,
            batches=len(measured),
            batch_size=jobs / len(measured),
            service_s=mean,
            service_sd_s=pstdev(self._services, mean),
            running=self._running,
            finished_per_s={lane: number / over_s for lane, number in sorted(finished.items())},
        )
