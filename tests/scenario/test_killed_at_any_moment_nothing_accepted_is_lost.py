"""The short form of `make chaos`: random kills, and a kill at every named crash point."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.storms.embedded import EmbeddedStorm, crash_once, least

CRASH_POINTS = (
    "api.before_publish",
    "api.after_publish",
    "worker.begun",
    "worker.before_publish",
    "worker.after_publish",
    "projector.before_project",
    "projector.after_project",
    "sqlite.before_commit",
    "sqlite.after_commit",
)


@pytest.mark.scenario
@pytest.mark.parametrize("synchronous", ["normal", "full"])
def test_random_kills(tmp_path: Path, synchronous: str) -> None:
    verdict = EmbeddedStorm(tmp_path, rounds=10, seed=20261123, synchronous=synchronous).run()
    assert verdict.broken == {}
    assert verdict.vacuous(least(10)) == []


@pytest.mark.scenario
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_killed_exactly_there(tmp_path: Path, point: str) -> None:
    verdict = crash_once(tmp_path, point, reached=20)
    assert verdict.broken == {}
    assert verdict.faults == 1
    assert verdict.accepted >= 10
