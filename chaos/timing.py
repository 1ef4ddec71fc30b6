"""What of a run hangs on when it happened: which fault explains which repeated run, how busy the service was when it
was hit, how long an outage was felt."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from msgspec import Struct

from chaos.history import Accepted, Fault
from chaos.ledger import NEVER, Run

OUTAGES = "broker"
"""Kinds of fault that begin so take the broker away from everybody."""

HARMLESS = frozenset({"leave", "join"})
"""Kinds that excuse nothing: who leaves in order has finished or handed over what it had."""


MOMENT_S = 0.5
"""A batch that waits in a runner begins as soon as the one before it has ended."""


class Reruns(Struct, frozen=True):
    count: int
    bound: int
    unexplained: int


def reruns(
    runs: Sequence[Run],
    faults: Sequence[Fault],
    settle_s: float,
    unwanted: Collection[str] = (),
    repeated: Collection[str] = (),
) -> Reruns:
    """A run after another of the same job is explained if a fault hit the worker of the one before while that had the
    job in hand: from the run's beginning until what came of it was on record, `settle_s` after its end. Or if the
    later run's own worker was held before it could begin, so that another's run overtook it. Or if the run before was
    cut off when its runner was killed for `unwanted` jobs only, which had ended in that very moment. Or if the request
    is `repeated`: it stands more than once in the log, since nobody could tell whether it did.
    """
    by_worker: dict[int, list[Fault]] = {}
    for fault in faults:
        if fault.kind not in HARMLESS:
            by_worker.setdefault(fault.pid, []).append(fault)

    def hit(run: Run, until: float) -> bool:
        return any(
            fault.began_at <= until and fault.ended_at + settle_s >= run.began_at
            for fault in (*by_worker.get(run.worker, ()), *by_worker.get(0, ()))
        )

    by_runner: dict[int, list[Run]] = {}
    for run in runs:
        by_runner.setdefault(run.runner, []).append(run)

    def cut_off(run: Run) -> bool:
        before = [one for one in by_runner[run.runner] if 0 <= run.began_at - one.ended_at <= MOMENT_S]
        return run.ended_at == NEVER and bool(before) and all(one.job_id in unwanted for one in before)

    by_job: dict[str, list[Run]] = {}
    for run in runs:
        by_job.setdefault(run.job_id, []).append(run)
    again = [pair for all_of in by_job.values() for pair in pairwise(all_of)]
    return Reruns(
        count=len(again),
        bound=sum(hit(run, run.ended_at + settle_s) for run in runs),
        unexplained=sum(
            not hit(before, min(before.ended_at, after.began_at) + settle_s)
            and not hit(after, after.began_at)
            and not cut_off(before)
            and before.job_id not in repeated
            for before, after in again
        ),
    )


def busy_faults(
    accepted: Iterable[Accepted], jobs: Mapping[str, Mapping[str, Any]], faults: Sequence[Fault], busy_at: int
) -> int:
    """Faults at whose beginning at least `busy_at` accepted jobs were not final yet. Others do not count, not even as
    final: of what a client was never told, nobody knows since when it was under way."""
    begun, finished = [], []
    for entry in accepted:
        job = jobs.get(entry.job_id)
        final_at = math.inf if job is None else datetime.fromisoformat(job["finished_at"]).timestamp()
        if final_at > entry.at:
            begun.append(entry.at)
            finished.append(final_at)
    begun.sort()
    finished.sort()
    return sum(
        bisect_right(begun, fault.began_at) - bisect_right(finished, fault.began_at) >= busy_at for fault in faults
    )


def refused_outages(refusals: Iterable[tuple[float, float]], faults: Sequence[Fault]) -> int:
    """Outages of the broker in which at least one 503 came."""
    times = sorted(at for at, _ in refusals)
    return sum(
        bisect_right(times, fault.ended_at) > bisect_right(times, fault.began_at)
        for fault in faults
        if fault.kind.startswith(OUTAGES)
    )


def waits_while_away(asked: Mapping[str, float], ended: Mapping[str, float], faults: Sequence[Fault]) -> list[float]:
    """Of each submission that was begun in an outage of the broker: how long its client waited; infinity without an
    answer. `asked` and `ended` are times by submission."""
    outages = [(fault.began_at, fault.ended_at) for fault in faults if fault.kind.startswith(OUTAGES)]
    return [
        ended.get(op, float("inf")) - at
        for op, at in asked.items()
        if any(began_at <= at <= ended_at for began_at, ended_at in outages)
    ]


def recoveries(accepted: Iterable[Accepted], faults: Sequence[Fault]) -> list[float]:
    """For each outage of the broker that ended: how long after its end the first 202 came; infinity if none did."""
    times = sorted(entry.at for entry in accepted)
    ends = [fault.ended_at for fault in faults if fault.kind.startswith(OUTAGES) and fault.ended_at != float("inf")]
    found = [bisect_right(times, end) for end in ends]
    return [times[place] - end if place < len(times) else float("inf") for place, end in zip(found, ends, strict=True)]
