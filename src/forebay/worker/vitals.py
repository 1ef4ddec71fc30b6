"""What one worker knows of itself: how fast it gets on, how often it was restarted, whether a backend is away."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import sqrt
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


class _Ended(Struct, frozen=True):
    jobs: int
    service_s: float
    busy_s: float  # time since the last one ended, as far as replicas were at work: half of two count half


class Timed:
    """A batch that is being timed. Without `done` it came to nothing: its time counts, its jobs do not."""

    def __init__(self) -> None:
        self.lanes: Counter[str] | None = None

    def done(self, lanes: Iterable[Lane]) -> None:
        """It has outcomes; a lane for each of its jobs."""
        self.lanes = Counter(lane.value for lane in lanes)


class Vitals:
    """Of a worker with so many `replicas`, which each can run a batch at once. `clock` is a monotonic one."""

    def __init__(self, replicas: int = 1, clock: Callable[[], float] = monotonic) -> None:
        self._replicas = replicas
        self._clock = clock
        self._since = clock()
        self._running = 0
        self._busy_s = 0.0  # not handed to a batch that ended yet
        self._passed_at = self._since
        self._batches: deque[_Ended] = deque(maxlen=BATCHES)
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
        timed = Timed()
        try:
            yield timed
        finally:
            now = self._pass()
            self._running -= 1
            if timed.lanes is not None:
                self._batches.append(_Ended(timed.lanes.total(), now - began, self._busy_s))
                self._busy_s = 0.0
                if not self._finished or self._finished[-1][0] < now - 1.0:
                    self._finished.append((now, Counter()))
                self._finished[-1][1].update(timed.lanes)

    def _pass(self) -> float:
        now = self._clock()
        self._busy_s += (now - self._passed_at) * min(self._running, self._replicas) / self._replicas
        self._passed_at = now
        return now

    def pace(self) -> Pace | None:
        """None until a batch has ended."""
        busy_s = sum(batch.busy_s for batch in self._batches)
        if busy_s <= 0.0:
            return None
        now, count = self._clock(), len(self._batches)
        jobs = sum(batch.jobs for batch in self._batches)
        mean = sum(batch.service_s for batch in self._batches) / count
        variance = sum((batch.service_s - mean) ** 2 for batch in self._batches) / count
        while self._finished and self._finished[0][0] < now - LAST_S:
            self._finished.popleft()
        over_s = max(1.0, min(LAST_S, now - self._since))
        finished = sum((lanes for _, lanes in self._finished), Counter[str]())
        return Pace(
            jobs_per_s=jobs / busy_s,
            batches=count,
            batch_size=jobs / count,
            service_s=mean,
            service_sd_s=sqrt(variance),
            running=self._running,
            finished_per_s={lane: number / over_s for lane, number in sorted(finished.items())},
        )
