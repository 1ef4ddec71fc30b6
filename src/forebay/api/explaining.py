"""What is known around a job, gathered, and what it comes to, as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from forebay.api.probe import QueueProbe
from forebay.core.explain import Band, Explanation, Standing, Surroundings, explain
from forebay.core.job import Job, JobStatus
from forebay.core.queues import LaneCount
from forebay.core.times import to_rfc3339
from forebay.ports.fleet import Fleet, ModelReport
from forebay.ports.store import ResultStore

LOOK = 10_000
"""So many jobs ahead are counted one by one, which takes PostgreSQL up to some 25 ms (SQLite 1 ms); beyond, a place is
told from its time."""


class Explainer:
    """`exact`: jobs leave a lane in the order in which they came to it, so that a position is more than an estimate."""

    def __init__(
        self,
        *,
        store: ResultStore,
        fleet: Fleet,
        probe: QueueProbe,
        exact: bool,
        clock: Callable[[], float],
        lag_s: Callable[[], float],
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._probe = probe
        self._exact = exact
        self._clock = clock
        self._lag_s = lag_s

    async def explain(self, job: Job) -> dict[str, Any]:
        """Raises Unavailable where the store is away."""
        if job.status.final or not job.model:
            return self._document(job, explain(job, Surroundings(now=self._clock(), lag_s=self._lag_s())), {})
        waits = job.status is JobStatus.QUEUED
        counts, ahead, reports, away = await asyncio.gather(
            self._store.queues(),
            self._store.ahead(job, LOOK) if waits else _nothing(),
            self._fleet.reports(),
            self._probe.away_lately(),
        )
        of_model = [count for count in counts if count.model == job.model]
        lane = next((count for count in of_model if count.lane == job.lane), None)
        exact = self._exact and ahead < LOOK
        if ahead >= LOOK and lane is not None:
            ahead = max(ahead, _by_time(job, lane, self._clock()))
        around = Surroundings(
            now=self._clock(),
            ahead=ahead,
            waiting={count.lane: count.waiting for count in of_model},
            ages_s={count.lane: self._clock() - count.oldest_at for count in of_model if count.oldest_at is not None},
            running=sum(count.running for count in of_model),
            workers=[_standing(report) for report in reports if report.model == job.model],
            queue_away=away,
            lag_s=self._lag_s(),
        )
        place = {}
        if waits:
            waiting = max(ahead + 1, 0 if lane is None else lane.waiting)
            place = {"position": ahead + 1, "position_exact": exact, "waiting": waiting}
        return self._document(job, explain(job, around), place)

    def _document(self, job: Job, found: Explanation, place: Mapping[str, Any]) -> dict[str, Any]:
        now = self._clock()
        document = {
            "id": job.id,
            "model": job.model or None,
            "lane": job.lane if job.model else None,
            "status": job.status.value,
            **place,
            "rate_per_s": None if found.pace is None else round(found.pace.jobs_per_s, 3),
            "retry_at": None if job.due_at is None else to_rfc3339(job.due_at),
            "expected_start": _band(found.start, now),
            "expected_finish": _band(found.finish, now),
            "causes": [{"code": cause.code, "message": cause.message} for cause in found.causes],
        }
        return {name: value for name, value in document.items() if value is not None}


async def _nothing() -> int:
    return 0


def _by_time(job: Job, lane: LaneCount, now: float) -> int:
    """As if the jobs of the lane had come at a steady rate."""
    if lane.oldest_at is None or lane.oldest_at >= now:
        return 0
    return int(lane.waiting * min(1.0, (job.created_at - lane.oldest_at) / (now - lane.oldest_at)))


def _standing(report: ModelReport) -> Standing:
    return Standing(**{name: getattr(report, name) for name in Standing.__struct_fields__})


def _band(band: Band | None, now: float) -> Mapping[str, Any] | None:
    if band is None:
        return None
    return {
        "p50_s": round(band.p50_s, 3),
        "p90_s": round(band.p90_s, 3),
        "p50_at": to_rfc3339(now + band.p50_s),
        "p90_at": to_rfc3339(now + band.p90_s),
    }
