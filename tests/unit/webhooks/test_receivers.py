"""How much a receiver is trusted with."""

from __future__ import annotations

import pytest

from forebay.webhooks.receivers import FAILURES_MOST, REST_MOST_S, WINDOW_AT_FIRST, WINDOW_MOST, Receivers


@pytest.fixture
def receivers() -> Receivers:
    return Receivers(lambda: 1.0)


def fail(receivers: Receivers, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        receivers.begin("a")
        receivers.failed("a", now)


def ready(receivers: Receivers) -> dict[str, int]:
    little, much = receivers.ready(0.0)
    return {**little, **much}


def test_a_new_one_has_little_room_until_it_answers(receivers: Receivers) -> None:
    for _ in range(WINDOW_AT_FIRST):
        assert "a" not in receivers.full(0.0)
        receivers.begin("a")
    assert "a" in receivers.full(0.0)
    assert receivers.doubtful == WINDOW_AT_FIRST
    receivers.succeeded("a")
    assert "a" not in receivers.full(0.0)
    assert "a" in ready(receivers)
    assert receivers.doubtful == 0


def test_each_good_answer_makes_room_up_to_a_bound(receivers: Receivers) -> None:
    for _ in range(100):
        receivers.begin("a")
        receivers.succeeded("a")
    for _ in range(WINDOW_MOST):
        assert "a" not in receivers.full(0.0)
        receivers.begin("a")
    assert "a" in receivers.full(0.0)


def test_one_that_fails_often_rests_longer_each_time_and_then_has_one_try(receivers: Receivers) -> None:
    fail(receivers, FAILURES_MOST - 1)
    assert "a" not in receivers.full(0.0)
    fail(receivers, 1)
    assert "a" in receivers.full(4.9)
    assert "a" not in receivers.full(5.0)
    receivers.begin("a")
    assert "a" in receivers.full(5.0)
    receivers.failed("a", 5.0)
    assert "a" in receivers.full(14.9)
    assert "a" not in receivers.full(15.0)
    fail(receivers, 50, now=15.0)
    assert "a" not in receivers.full(15.0 + REST_MOST_S)


def test_a_good_answer_forgives_all(receivers: Receivers) -> None:
    fail(receivers, FAILURES_MOST + 3)
    receivers.begin("a")
    receivers.succeeded("a")
    assert "a" in ready(receivers)
    fail(receivers, FAILURES_MOST - 1)
    assert "a" not in receivers.full(0.0)


def test_one_that_asks_for_a_rest_has_it(receivers: Receivers) -> None:
    receivers.begin("a")
    receivers.failed("a", 0.0, retry_after_s=30.0)
    assert "a" in receivers.full(29.0)
    assert "a" not in receivers.full(30.0)


def test_one_that_only_does_not_want_this_one_is_no_worse_for_it(receivers: Receivers) -> None:
    for _ in range(FAILURES_MOST + 1):
        receivers.begin("a")
        receivers.refused("a")
    assert "a" not in receivers.full(0.0)


def test_others_do_not_suffer(receivers: Receivers) -> None:
    fail(receivers, 50)
    assert receivers.full(0.0) == ["a"]


def test_one_that_answers_well_is_ready_for_more_once_half_of_its_window_is_free(receivers: Receivers) -> None:
    for _ in range(WINDOW_MOST):
        receivers.begin("a")
        receivers.succeeded("a")
    for left in range(WINDOW_MOST - 1, -1, -1):
        receivers.begin("a")
        assert ready(receivers) == ({"a": left} if left * 2 >= WINDOW_MOST else {})
        assert "a" in receivers.not_new(0.0)


def test_one_with_a_small_window_is_told_apart_from_one_with_a_large(receivers: Receivers) -> None:
    receivers.begin("small")
    receivers.succeeded("small")
    for _ in range(WINDOW_MOST):
        receivers.begin("large")
        receivers.succeeded("large")
    assert receivers.ready(0.0) == ({"small": WINDOW_AT_FIRST + 1}, {"large": WINDOW_MOST})
