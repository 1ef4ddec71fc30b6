"""A worker measures itself while it has work."""

from __future__ import annotations

import pytest

from forebay.core.lanes import Lane
from forebay.core.pace import Pace, together
from forebay.testing.clock import HandClock
from forebay.worker.vitals import AWAY_FOR_S, BATCHES, FEW, LAST_S, Vitals


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def vitals(clock: HandClock) -> Vitals:
    return Vitals(1, clock)


def run(vitals: Vitals, clock: HandClock, took_s: float, *lanes: Lane) -> None:
    with vitals.batch() as timed:
        clock.now += took_s
        timed.predicted(lanes)


def pace(vitals: Vitals) -> Pace:
    measured = vitals.pace()
    assert measured is not None
    return measured


def test_before_the_first_batch_nothing_is_known(vitals: Vitals, clock: HandClock) -> None:
    clock.now += 5.0
    assert vitals.pace() is None


def test_an_idle_hour_does_not_make_a_worker_slow(vitals: Vitals, clock: HandClock) -> None:
    for _ in range(10):
        run(vitals, clock, 0.5, Lane.NORMAL, Lane.HIGH)
        clock.now += 3600.0
    assert pace(vitals).jobs_per_s == pytest.approx(4.0)
    assert (pace(vitals).batch_size, pace(vitals).service_s, pace(vitals).service_sd_s) == (2.0, 0.5, 0.0)


def test_batches_side_by_side_share_the_time(vitals: Vitals, clock: HandClock) -> None:
    with vitals.batch() as one:
        clock.now += 1.0
        with vitals.batch() as other:
            assert vitals.pace() is None
            clock.now += 1.0
            one.predicted([Lane.NORMAL] * 3)
            other.predicted([Lane.NORMAL])
    assert pace(vitals).jobs_per_s == pytest.approx(2.0)
    assert pace(vitals).service_s == pytest.approx(1.5)
    assert pace(vitals).service_sd_s == pytest.approx(0.5)


def test_a_batch_that_came_to_nothing_costs_its_time(vitals: Vitals, clock: HandClock) -> None:
    with vitals.batch():
        clock.now += 1.0
    run(vitals, clock, 1.0, Lane.NORMAL)
    assert pace(vitals).jobs_per_s == pytest.approx(0.5)
    assert pace(vitals).service_s == pytest.approx(1.0)


def test_what_is_published_meanwhile_does_not_keep_the_runner(vitals: Vitals, clock: HandClock) -> None:
    for _ in range(3):
        with vitals.batch() as timed:
            clock.now += 0.5
            timed.predicted([Lane.NORMAL])
            clock.now += 0.5
    assert pace(vitals).jobs_per_s == pytest.approx(2.0)
    assert pace(vitals).service_s == pytest.approx(1.0)


def test_once_batches_follow_each_other_at_once_they_tell_what_a_worker_manages(
    vitals: Vitals, clock: HandClock
) -> None:
    """One that comes alone also waits for what is done beside the runner of those that follow."""
    for _ in range(20):
        run(vitals, clock, 1.0, Lane.NORMAL)
    before = vitals.batch()
    timed = before.__enter__()
    for _ in range(FEW + 1):
        after = vitals.batch()
        following = after.__enter__()
        clock.now += 0.5
        timed.predicted([Lane.NORMAL])
        before.__exit__(None, None, None)
        before, timed = after, following
    assert pace(vitals).jobs_per_s == pytest.approx(2.0)


def test_a_change_of_pace_is_followed(vitals: Vitals, clock: HandClock) -> None:
    for took_s in (1.0, 0.1):
        for _ in range(BATCHES):
            run(vitals, clock, took_s, Lane.NORMAL)
    assert pace(vitals).jobs_per_s == pytest.approx(10.0)


def test_what_ended_is_counted_by_lane_over_the_last_minute(vitals: Vitals, clock: HandClock) -> None:
    run(vitals, clock, 1.0, Lane.LOW)
    clock.now += LAST_S
    for _ in range(30):
        run(vitals, clock, 1.0, Lane.NORMAL, Lane.HIGH)
    clock.now += 30.0
    assert pace(vitals).finished_per_s == pytest.approx({"normal": 0.5, "high": 0.5})


def test_a_backend_is_away_until_it_has_not_failed_for_a_while(vitals: Vitals, clock: HandClock) -> None:
    seen = [vitals.away]
    vitals.backend_failed()
    seen.append(vitals.away)
    clock.now += AWAY_FOR_S
    seen.append(vitals.away)
    assert seen == [False, True, False]


def test_the_paces_of_several_workers_add_up() -> None:
    fast = Pace(jobs_per_s=8.0, batches=50, batch_size=2.0, service_s=0.25, service_sd_s=0.0, running=1)
    slow = Pace(jobs_per_s=2.0, batches=10, batch_size=1.0, service_s=0.5, service_sd_s=0.0, running=2)
    both = together([fast, slow])
    assert both is not None
    assert (both.jobs_per_s, both.batches, both.running) == (10.0, 60, 3)
    assert both.batch_size == pytest.approx(10.0 / 6.0)
    assert both.service_s == pytest.approx((4 * 0.25 + 2 * 0.5) / 6)
    assert both.service_sd_s == pytest.approx(0.1178511)
    assert together([]) is None
    assert together([fast]) == fast
