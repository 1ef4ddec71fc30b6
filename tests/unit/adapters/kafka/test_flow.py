"""When a consumer is paused, and when it goes on."""

from __future__ import annotations

from typing import Any, cast

from forebay.adapters.kafka.entries import Entry
from forebay.adapters.kafka.flow import PRESSED_S, Flow
from forebay.adapters.kafka.hand import Hand
from forebay.adapters.kafka.tracker import Tracker
from forebay.testing.samples import message

ONE, OTHER = ("topic", 0), ("topic", 1)


def hand_with(count: int, *, most_of_a_part: int = 1000) -> Hand:
    hand = Hand(lambda: None, most_of_a_part=most_of_a_part)
    for place in (ONE, OTHER):
        hand.assigned(place, Tracker(0))
    no_record = cast("Any", None)
    hand.feed(Entry(place=ONE, offset=offset, record=no_record, message=message(offset)) for offset in range(count))
    return hand


def test_back_pressure_is_met_with_a_pause_only_after_a_while() -> None:
    hand = hand_with(20)
    flow = Flow(hand)
    hand.take(10)
    assert hand.wanted <= 0
    assert flow.paused(100.0) == set()
    assert flow.paused(100.0 + PRESSED_S - 0.01) == set()
    assert flow.paused(100.0 + PRESSED_S) == {ONE, OTHER}
    assert flow.stopped


def test_a_consumer_that_asks_again_in_time_is_not_paused() -> None:
    hand = hand_with(20)
    flow = Flow(hand)
    hand.take(10)
    flow.paused(100.0)
    hand.take(10)
    assert hand.wanted > 0
    assert flow.paused(100.0 + 2 * PRESSED_S) == set()
    assert not flow.stopped


def test_a_pause_ends_when_half_is_done() -> None:
    hand = hand_with(20)
    flow = Flow(hand)
    taken = [entry.receipt for entry, _ in hand.take(10)]
    for now in (100.0, 110.0):
        flow.paused(now)
    hand.done(taken[:9])
    assert flow.paused(111.0) == {ONE, OTHER}
    hand.done(taken[9:])
    assert flow.paused(112.0) == set()


def test_a_pause_ends_when_somebody_asks_in_vain() -> None:
    hand = hand_with(4)
    flow = Flow(hand)
    hand.take(2)
    for now in (100.0, 110.0):
        flow.paused(now)
    hand.take(2)
    assert flow.paused(111.0) == {ONE, OTHER}
    assert hand.take(1) == []
    assert flow.paused(112.0) == set()


def test_an_idle_consumer_is_not_paused() -> None:
    flow = Flow(hand_with(0))
    for now in (100.0, 110.0, 120.0):
        assert flow.paused(now) == set()


def test_a_partition_without_room_is_paused_alone_until_half_of_it_is_done() -> None:
    hand = hand_with(7, most_of_a_part=6)
    flow = Flow(hand)
    taken = [entry.receipt for entry, _ in hand.take(10)]
    assert flow.paused(100.0) == {ONE}
    hand.done(taken[:1])
    hand.unstash()
    assert flow.paused(101.0) == {ONE}
    hand.done(taken[1:4])
    assert flow.paused(102.0) == set()
