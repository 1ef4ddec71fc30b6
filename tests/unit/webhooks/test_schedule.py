"""When a delivery is tried again."""

from __future__ import annotations

import pytest

from forebay.webhooks.schedule import DELAYS_S, JITTER, RETRY_AFTER_MOST_S, TRIES, next_try_s

DAY_S = 86_400.0


def test_ten_tries_take_three_days() -> None:
    delays = [next_try_s(tries, 0.5) for tries in range(1, TRIES)]
    assert delays == list(DELAYS_S)
    assert len(delays) + 1 == 10
    assert 3 * DAY_S < sum(DELAYS_S) < 3.5 * DAY_S


def test_after_the_last_there_is_none() -> None:
    assert next_try_s(TRIES, 0.5) is None
    assert next_try_s(TRIES, 0.5, retry_after_s=1.0) is None


@pytest.mark.parametrize("random", [0.0, 0.999])
def test_what_failed_together_does_not_come_together_again(random: float) -> None:
    for tries, delay_s in enumerate(DELAYS_S, start=1):
        found = next_try_s(tries, random)
        assert found is not None
        assert found != delay_s
        assert abs(found - delay_s) <= delay_s * JITTER / 2


def test_a_receiver_that_asks_for_time_gets_it_and_not_more_than_a_day() -> None:
    assert next_try_s(1, 0.5, retry_after_s=60.0) == 60.0
    assert next_try_s(1, 0.5, retry_after_s=1.0) == DELAYS_S[0]
    assert next_try_s(1, 0.5, retry_after_s=1e9) == RETRY_AFTER_MOST_S
