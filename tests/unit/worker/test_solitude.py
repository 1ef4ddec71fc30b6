"""Who may start beside whom."""

from __future__ import annotations

import asyncio

from forebay.worker.solitude import Solitude


def test_batches_that_want_no_solitude_run_side_by_side() -> None:
    solitude = Solitude()
    assert solitude.enter("a", alone=False)
    assert solitude.enter("b", alone=False)


def test_nothing_starts_beside_one_that_is_alone() -> None:
    solitude = Solitude()
    assert solitude.enter("a", alone=True)
    assert not solitude.enter("a", alone=False)
    assert not solitude.enter("b", alone=True)
    solitude.leave()
    assert solitude.enter("b", alone=True)


def test_one_that_wants_to_be_alone_waits_for_what_runs_and_for_nothing_new() -> None:
    solitude = Solitude()
    assert solitude.enter("a", alone=False)
    assert not solitude.enter("b", alone=True)
    assert not solitude.enter("a", alone=False)
    solitude.leave()
    assert solitude.enter("b", alone=True)


def test_whoever_gives_up_lets_the_others_in() -> None:
    solitude, door = Solitude(), asyncio.Event()
    solitude.watch(door)
    assert solitude.enter("a", alone=False)
    assert not solitude.enter("b", alone=True)
    solitude.give_up("b")
    assert door.is_set()
    assert solitude.enter("a", alone=False)


def test_a_leaver_wakes_those_who_watch_and_nobody_else() -> None:
    solitude, door, other = Solitude(), asyncio.Event(), asyncio.Event()
    solitude.watch(door)
    solitude.watch(other)
    solitude.unwatch(other)
    assert solitude.enter("a", alone=True)
    solitude.leave()
    assert (door.is_set(), other.is_set()) == (True, False)
