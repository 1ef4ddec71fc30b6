"""How lanes share a worker."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.lanes import AGE_S, WEIGHTS, Lane, LaneWheel, weight

some_lanes = st.lists(st.sampled_from(list(Lane)), min_size=1, unique=True)


def test_lanes_with_work_share_by_weight() -> None:
    wheel = LaneWheel()
    assert Counter(wheel.turn(list(Lane)) for _ in range(120)) == {lane: 10 * WEIGHTS[lane] for lane in Lane}


def test_a_lane_alone_gets_every_turn() -> None:
    wheel = LaneWheel()
    assert {wheel.turn([Lane.LOW]) for _ in range(5)} == {Lane.LOW}


@given(some_lanes)
def test_no_lane_waits_longer_than_a_round(lanes: list[Lane]) -> None:
    wheel = LaneWheel()
    total = sum(WEIGHTS[lane] for lane in lanes)
    for _ in range(3):
        assert Counter(wheel.turn(lanes) for _ in range(total)) == {lane: WEIGHTS[lane] for lane in lanes}


@given(st.lists(some_lanes, max_size=50))
def test_a_turn_goes_to_a_candidate(rounds: list[list[Lane]]) -> None:
    wheel = LaneWheel()
    for lanes in rounds:
        assert wheel.turn(lanes) in lanes


@given(st.sampled_from(list(Lane)), st.lists(st.sets(st.sampled_from(list(Lane))), min_size=24, max_size=60))
def test_a_lane_with_work_is_not_starved_by_lanes_that_come_and_go(lane: Lane, others: list[set[Lane]]) -> None:
    wheel = LaneWheel()
    turns = [wheel.turn(sorted(rivals | {lane}, key=list(Lane).index)) for rivals in others]
    assert lane in turns[:24]


@given(st.sampled_from(list(Lane)), st.floats(-1e9, 1e9))
def test_an_old_lane_weighs_more_and_never_more_than_the_most_urgent(lane: Lane, age_s: float) -> None:
    assert WEIGHTS[lane] <= weight(lane, age_s) <= WEIGHTS[Lane.HIGH]
    assert weight(lane, age_s) <= weight(lane, age_s + AGE_S)


def starts(low_alone_from: int, seconds: int) -> list[tuple[int, int]]:
    """When jobs of `low` came and when they started, on a worker that starts 12 jobs a second, while `high` and
    `normal` never run out of work and `low` gets one job a second from then on."""
    wheel, waiting, told = LaneWheel(), [], []
    for second in range(seconds):
        if second >= low_alone_from:
            waiting.append(second)
        for _ in range(12):
            rivals = [Lane.HIGH, Lane.NORMAL, *([Lane.LOW] if waiting else [])]
            ages = {Lane.LOW: float(second - waiting[0])} if waiting else {}
            if wheel.turn(rivals, ages) is Lane.LOW:
                told.append((waiting.pop(0), second))
    return told


def test_low_starts_whatever_comes_to_the_others() -> None:
    told = starts(0, 600)
    assert len(told) >= 599
    assert max(started - came for came, started in told) <= 1


def test_a_backlog_of_low_is_worked_off_faster_the_older_it_is() -> None:
    """600 jobs that came at once: without age they would take ten minutes and more."""
    wheel, taken = LaneWheel(), 0
    by_minute = []
    for second in range(600):
        ages = {Lane.LOW: float(second)}
        taken += sum(wheel.turn(list(Lane), ages) is Lane.LOW for _ in range(12))
        if second % 60 == 59:
            by_minute.append(taken)
    shares = [later - earlier for earlier, later in zip([0, *by_minute], by_minute, strict=False)]
    assert shares == sorted(shares)
    assert shares[0] < 120
    assert shares[-1] > 240
