"""The checker sees what each bug does to a run of kills and pauses, and raises no alarm where there is none."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from tests.unit.chaos.toy import BUGS, JOBS, Toy

SYMPTOMS = {
    "ack before delivery report": {"lost", "false_202"},
    "commit before result": {"lost"},
    "auto commit": {"lost"},
    "last writer wins": {"changed", "contradicted"},
    "batch shifted by one": {"swapped", "wrong_answers", "false_attempts"},
    "attempts only in memory": {"repeated_attempts"},
    "offset reset latest": {"lost"},
    "projector position outside the transaction": {"lost", "contradicted"},
    "an unknown outcome told as a refusal": {"phantom", "false_refusals"},
    "a worker lets go of what it runs": {"unexplained_reruns"},
}


@pytest.mark.parametrize("bug", BUGS)
def test_each_bug_is_found_by_what_it_does_and_by_nothing_else(bug: str) -> None:
    found: Collection[str] = {name for seed in range(5) for name in Toy(seed, bug).verdict().broken}
    assert found == SYMPTOMS[bug]


@pytest.mark.parametrize("seed", range(100))
def test_a_service_without_a_bug_raises_no_alarm(seed: int) -> None:
    verdict = Toy(seed).verdict()
    assert verdict.broken == {}
    assert verdict.accepted + verdict.unknown + verdict.refused == JOBS
    assert verdict.reruns <= verdict.reruns_bound


def test_the_toy_is_really_harmed() -> None:
    verdict = Toy(seed=1).verdict()
    assert verdict.faults > 20
    assert verdict.busy_faults
    assert verdict.reruns
    assert verdict.duplicate_finals
    assert verdict.unknown
