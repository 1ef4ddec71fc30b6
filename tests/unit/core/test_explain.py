"""Why a job waits, and how well the time is told at which it starts and ends."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from forebay.core.attempts import Attempt
from forebay.core.event import JobError
from forebay.core.explain import BEHIND_S, Band, Explanation, Standing, Surroundings, Why, band, explain, turns_before
from forebay.core.job import Job, JobStatus
from forebay.core.lanes import WEIGHTS, Lane, LaneWheel
from forebay.core.model import ModelStatus
from forebay.core.pace import Pace
from forebay.testing.clock import HandClock
from forebay.worker.vitals import Timed, Vitals

NOW = 1000.0
PACE = Pace(jobs_per_s=4.0, batches=50, batch_size=1.0, service_s=0.25, service_sd_s=0.0)
READY = Standing(status=ModelStatus.READY, replicas_ready=1, pace=PACE)


def job(status: JobStatus = JobStatus.QUEUED, **facts: Any) -> Job:
    return Job(**{"tenant": "t", "id": "j", "model": "m", "status": status, "created_at": NOW - 9.0, **facts})


def explained(about: Job, *workers: Standing, **around: Any) -> Explanation:
    return explain(about, Surroundings(now=NOW, workers=workers, **around))


def codes(found: Explanation) -> list[Why]:
    return [cause.code for cause in found.causes]


# ------------------------------------------------------------------------------------------------------------- causes


@pytest.mark.parametrize("status", [status for status in JobStatus if status.final])
def test_of_a_final_job_nothing_is_expected(status: JobStatus) -> None:
    found = explained(job(status), READY)
    assert codes(found) == [Why.FINAL]
    assert status.value in found.causes[0].message
    assert (found.start, found.finish) == (None, None)


def test_a_job_that_the_store_has_not_seen_is_not_visible_yet() -> None:
    assert codes(explained(job(model=""))) == [Why.NOT_VISIBLE_YET]


def unavailable(reason: str, **facts: Any) -> Standing:
    return Standing(status=ModelStatus.UNAVAILABLE, reason=reason, **facts)


LOADING = Standing(status=ModelStatus.LOADING)
RESTARTING = Standing(status=ModelStatus.LOADING, reason="restarting: the runner died", restarting=True)
FAILED = unavailable("no module named weights")


@pytest.mark.parametrize(
    ("workers", "why", "words"),
    [
        ([], Why.NO_WORKER, "no live worker"),
        ([FAILED], Why.MODEL_FAILED_TO_LOAD, "no module named weights"),
        ([LOADING], Why.MODEL_LOADING, "loading"),
        ([FAILED, LOADING], Why.MODEL_LOADING, "loading"),
        ([RESTARTING], Why.WORKERS_RESTARTING, "the runner died"),
        ([unavailable("its worker crashed", restarting=True)], Why.WORKERS_RESTARTING, "crashed"),
        ([Standing(status=ModelStatus.READY, away=True)], Why.BACKEND_AWAY, "cannot reach"),
    ],
)
def test_what_stands_in_the_way_is_named_and_then_no_time_is_told(
    workers: Sequence[Standing], why: Why, words: str
) -> None:
    found = explained(job(), *workers, ahead=3)
    assert codes(found) == [why]
    assert words in found.causes[0].message
    assert (found.start, found.finish) == (None, None)


def test_one_worker_that_is_ready_is_enough() -> None:
    found = explained(job(), FAILED, RESTARTING, READY, Standing(status=ModelStatus.READY, away=True), ahead=3)
    assert codes(found) == [Why.JOBS_AHEAD]
    assert "3 jobs" in found.causes[0].message


def test_while_the_queue_is_away_nobody_knows_of_workers() -> None:
    found = explained(job(), queue_away="the queue did not answer")
    assert codes(found) == [Why.BACKEND_AWAY]


def test_the_next_one_is_told_so() -> None:
    assert codes(explained(job(), READY)) == [Why.NEXT]


def test_a_retry_is_due_at_its_time_and_starts_not_before() -> None:
    again = job(due_at=NOW + 30.0, attempts=1, error=JobError(code="not_yet", message="", retryable=True))
    found = explained(again, READY, ahead=2, waiting={"normal": 9})
    assert codes(found) == [Why.RETRY_DUE]
    assert "attempt 2" in found.causes[0].message
    assert "30.0 s after not_yet" in found.causes[0].message
    assert found.start is not None
    assert found.start.p50_s == 30.0
    assert codes(explained(again)) == [Why.NO_WORKER, Why.RETRY_DUE]
    assert codes(explained(job(due_at=NOW - 1.0), READY, ahead=1)) == [Why.JOBS_AHEAD]


def test_what_is_behind_is_said_beside_the_rest() -> None:
    assert codes(explained(job(), READY, ahead=1, lag_s=BEHIND_S)) == [Why.JOBS_AHEAD, Why.STATES_BEHIND]


def running_since(seconds: float) -> Job:
    return job(JobStatus.RUNNING, attempts=2, history=(Attempt(attempt=2, started_at=NOW - seconds),))


def test_a_running_job_ends_after_what_is_left_of_the_usual_time() -> None:
    found = explained(running_since(0.1), READY)
    assert codes(found) == [Why.RUNNING]
    assert found.start is None
    assert found.finish is not None
    assert found.finish.p50_s == pytest.approx(0.15, abs=0.01)
    assert found.finish.p90_s >= found.finish.p50_s


def test_a_job_whose_runner_is_gone_is_not_taken_for_running() -> None:
    for worker, why in (([], Why.NO_WORKER), ([RESTARTING], Why.WORKERS_RESTARTING)):
        found = explained(running_since(0.1), *worker)
        assert codes(found) == [why, Why.RUNNING]
        assert found.finish is None


def test_a_job_that_runs_longer_than_usual_is_told_so_and_no_time() -> None:
    found = explained(running_since(0.5), READY)
    assert codes(found) == [Why.RUNNING, Why.LONGER_THAN_USUAL]
    assert found.finish is None


def test_before_anything_was_measured_no_time_is_told() -> None:
    found = explained(job(), Standing(status=ModelStatus.READY, replicas_ready=1), ahead=3)
    assert codes(found) == [Why.JOBS_AHEAD]
    assert (found.pace, found.start, found.finish) == (None, None, None)


# ------------------------------------------------------------------------------------------------------------ estimate


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e9))
def test_a_band_is_never_the_wrong_way_round(mean: float, variance: float) -> None:
    found = band(mean, variance)
    assert 0.0 <= found.p50_s <= found.p90_s


def test_an_exponential_and_a_certain_time_have_the_quantiles_that_they_should() -> None:
    exponential = band(1.0, 1.0)
    assert (exponential.p50_s, exponential.p90_s) == pytest.approx((0.693, 2.303), rel=0.02)
    assert band(5.0, 0.0) == Band(5.0, 5.0)


@given(
    st.sampled_from(list(Lane)),
    st.integers(0, 300),
    st.fixed_dictionaries({lane.value: st.integers(0, 300) for lane in Lane}),
)
def test_what_goes_before_is_what_the_wheel_gives(lane: Lane, ahead: int, waiting: dict[str, int]) -> None:
    """Of the real turns, within one round of the wheel."""
    wheel, left, turns = LaneWheel(), {**waiting, lane.value: ahead + 1}, 0
    while left[lane.value] > 0:
        taken = wheel.turn([one for one in Lane if left[one.value] > 0])
        left[taken.value] -= 1
        turns += 1
    assert abs(turns_before(lane.value, ahead, waiting) - (turns - 1)) <= sum(WEIGHTS.values())


class Service(Struct):
    """A queue of batches in front of runners that take `1 +- variation` seconds for each."""

    seed: int
    runners: int
    most: int
    load: float
    variation: float

    def told(self, jobs: int, before: int) -> Iterator[tuple[Band, float]]:
        """What was told to each job that had to wait when it came, but for the first, and after how long it started."""
        chance, clock = random.Random(self.seed), HandClock()
        vitals = Vitals(self.runners, clock)
        per_s, at = self.runners * self.most * self.load, 0.0
        events: list[tuple[float, int, Any]] = []
        for number in range(jobs + before):
            at += chance.expovariate(per_s)
            heapq.heappush(events, (at, number, None))
        waiting: list[int] = []
        told: dict[int, tuple[float, Band]] = {}
        free, running, order = self.runners, 0, len(events)
        while events:
            clock.now, number, ended = heapq.heappop(events)
            if ended is None:
                around = Surroundings(
                    now=clock.now,
                    ahead=len(waiting),
                    waiting={"normal": len(waiting) + 1},
                    running=running,
                    workers=[Standing(status=ModelStatus.READY, replicas_ready=self.runners, pace=vitals.pace())],
                )
                start = explain(job(), around).start
                waiting.append(number)
                if number >= before and start is not None and start.p50_s > 0.0:
                    told[number] = clock.now, start
            else:
                context, timed, count = ended
                _end(context, timed, count)
                free, running = free + 1, running - count
            while free and waiting:
                batch, waiting = waiting[: self.most], waiting[self.most :]
                free, running, order = free - 1, running + len(batch), order + 1
                context = vitals.batch()
                begun = (context, context.__enter__(), len(batch))
                heapq.heappush(events, (clock.now + self._takes(chance), order, begun))
                yield from ((told[one][1], clock.now - told[one][0]) for one in batch if one in told)

    def _takes(self, chance: random.Random) -> float:
        shape = self.variation**-2
        return chance.gammavariate(shape, 1 / shape)


def _end(context: AbstractContextManager[Timed], timed: Timed, count: int) -> None:
    timed.predicted([Lane.NORMAL] * count)
    context.__exit__(None, None, None)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    st.builds(
        Service,
        seed=st.integers(0, 10**6),
        runners=st.sampled_from([1, 2]),
        most=st.just(1),
        load=st.floats(0.8, 0.95),
        variation=st.floats(0.01, 0.5),
    )
)
def test_at_a_steady_rate_half_start_by_the_p50_and_nine_in_ten_by_the_p90(service: Service) -> None:
    told = list(service.told(2000, before=200))
    assert len(told) > 500
    assert 0.4 <= sum(after <= start.p50_s for start, after in told) / len(told) <= 0.6
    assert 0.85 <= sum(after <= start.p90_s for start, after in told) / len(told) <= 0.95
    assert median(start.p90_s / start.p50_s for start, _ in told) <= 3.0
