"""How much waits and runs, in each lane of each model and for each tenant, counted as jobs move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from forebay.core.job import Job, JobStatus

Change = tuple[Job | None, Job]
"""A job before and after; None where nothing was known of it."""

Place = tuple[str, str]
"""A model and a lane."""


class LaneCount(Struct, frozen=True, kw_only=True):
    """Of one lane of one model, over all tenants. `oldest_at`: when the oldest job that waits was accepted, None where
    none waits. What waits for its next attempt counts as waiting."""

    model: str
    lane: str
    waiting: int
    running: int
    oldest_at: float | None = None


def moved(changes: Iterable[Change]) -> Mapping[Place, tuple[int, int]]:
    """By how much the numbers of waiting and of running jobs change, where they do."""
    sums: dict[Place, list[int]] = {}
    for before, after in changes:
        for job, sign in ((before, -1), (after, 1)):
            if job is None or not job.model or job.status.final:
                continue
            of_lane = sums.setdefault((job.model, job.lane), [0, 0])
            of_lane[job.status is JobStatus.RUNNING] += sign
    return {place: (waiting, running) for place, (waiting, running) in sums.items() if waiting or running}


def outstanding(changes: Iterable[Change]) -> Mapping[str, int]:
    """By how much the number of a tenant's jobs changes that are not final, where it does."""
    sums: dict[str, int] = {}
    for before, after in changes:
        for job, sign in ((before, -1), (after, 1)):
            if job is not None and job.model and not job.status.final:
                sums[job.tenant] = sums.get(job.tenant, 0) + sign
    return {tenant: change for tenant, change in sums.items() if change}


def waits(job: Job | None) -> bool:
    """A stub does not: nobody knows its lane."""
    return job is not None and bool(job.model) and job.status is JobStatus.QUEUED
