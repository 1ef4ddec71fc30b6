"""What is known of canceled jobs is bounded."""

from __future__ import annotations

from forebay.core.canceled import CanceledJobs


def test_the_oldest_are_forgotten() -> None:
    canceled = CanceledJobs(most=2)
    for number in range(4):
        canceled.add("acme", f"job-{number}")
    assert [number for number in range(4) if ("acme", f"job-{number}") in canceled] == [2, 3]
