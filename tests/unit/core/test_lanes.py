"""How lanes share a worker."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.lanes import WEIGHTS, Lane, LaneWheel

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
