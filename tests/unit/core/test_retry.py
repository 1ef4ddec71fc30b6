"""When a failed attempt is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.retry import RetryPolicy

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10),
    first_delay_s=st.floats(0.01, 10.0),
    factor=st.floats(1.0, 10.0),
    max_delay_s=st.floats(10.0, 1000.0),
)
randoms = st.floats(0.0, 1.0, exclude_max=True)


def test_the_default_policy_tries_three_times() -> None:
    policy = RetryPolicy()
    assert [policy.delay_s(attempt, 0.0) for attempt in (1, 2, 3, 4)] == [0.5, 2.0, None, None]
    assert [policy.delay_s(attempt, 0.5) for attempt in (1, 2)] == [0.75, 3.0]


@given(policies, randoms)
def test_the_last_attempt_is_followed_by_none(policy: RetryPolicy, random: float) -> None:
    delays = [policy.delay_s(attempt, random) for attempt in range(1, 20)]
    assert [delay is not None for delay in delays] == [attempt < policy.max_attempts for attempt in range(1, 20)]


@given(policies, randoms)
def test_a_delay_lies_in_the_upper_half_and_under_the_limit(policy: RetryPolicy, random: float) -> None:
    for attempt in range(1, policy.max_attempts):
        delay_s = policy.delay_s(attempt, random)
        full_s = policy.delay_s(attempt, 0.0)
        assert delay_s is not None
        assert full_s is not None
        assert full_s <= delay_s <= policy.max_delay_s
        assert delay_s >= policy.first_delay_s / 2


@pytest.mark.parametrize("attempt", [1, 2])
def test_jitter_spreads_over_half_of_the_delay(attempt: int) -> None:
    policy = RetryPolicy(max_attempts=9)
    least, most = policy.delay_s(attempt, 0.0), policy.delay_s(attempt, 0.999)
    assert least is not None
    assert most is not None
    assert most / least == pytest.approx(2.0, rel=0.01)


def test_many_attempts_do_not_overflow() -> None:
    assert RetryPolicy(max_attempts=10**6).delay_s(400, 0.0) == 150.0
