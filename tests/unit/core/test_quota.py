"""A window counts what a naive model counts, whatever was added and whenever it is asked."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from forebay.core.quota import DAY_S, MINUTE_S, Quota, Window

STEPS = st.lists(st.tuples(st.integers(0, 40) | st.integers(0, 30_000), st.integers(1, 9)), max_size=30)


@given(STEPS, st.floats(0.0, 0.999))
def test_a_window_counts_the_last_minute_and_the_day(steps: list[tuple[int, int]], fraction: float) -> None:
    window, added = Window(), []
    times = itertools.accumulate((step for step, _ in steps), initial=1_764_000_000)
    for now, (_, count) in zip(times, steps, strict=False):
        at = now + fraction
        window.add(count, at)
        added.append((now, count))
        assert window.minute(at) == sum(count for second, count in added if second + 1 > at - MINUTE_S)
        assert window.day(at) == sum(count for second, count in added if second // DAY_S == at // DAY_S)


def test_there_is_room_when_the_oldest_second_is_a_minute_old() -> None:
    window = Window()
    assert window.room_in_s(100.0) == 0.0
    window.add(3, 100.5)
    room_at = 101.0 + window.room_in_s(101.0)
    assert window.minute(room_at - 0.001) == 3
    assert window.minute(room_at) == 0


def test_what_did_not_come_about_does_not_count() -> None:
    window = Window()
    window.add(3, 100.0)
    window.add(-3, 104.0)
    assert (window.minute(104.0), window.day(104.0)) == (0, 0)


def test_a_clock_that_was_set_back_neither_loses_nor_keeps_for_ever() -> None:
    window = Window()
    window.add(2, 1000.0)
    window.add(1, 500.0)
    assert window.minute(500.0) == 3
    assert window.minute(1000.0 + 2 * MINUTE_S) == 0


def test_a_quota_takes_what_it_does_not_say_from_another() -> None:
    mine = Quota(jobs_per_day=0)
    assert mine.or_else(Quota(jobs_per_day=5, jobs_per_minute=7)) == Quota(jobs_per_day=0, jobs_per_minute=7)
    assert dict(mine.limits) == {"jobs_per_day": 0}
