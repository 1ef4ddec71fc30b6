"""Crash points do nothing until a test arms them."""

from __future__ import annotations

from forebay.core import crash


def test_points_call_what_was_armed_and_nothing_else() -> None:
    reached: list[str] = []
    crash.reach("before")
    crash.arm(reached.append)
    try:
        crash.reach("one")
        crash.reach("two")
    finally:
        crash.arm(None)
    crash.reach("after")
    assert reached == ["one", "two"]
