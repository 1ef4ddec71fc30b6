"""What is printed in the end, and what counts as having found a planted bug."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from chaos import __main__ as command
from chaos.planted import FOUND_BY
from chaos.report import Line, Order, Part, line_of, table
from chaos.rules import Least
from chaos.stage import Stage
from chaos.verdict import PROMISES, Verdict


def part(**counts: int) -> Part:
    return Part("a part", Verdict(accepted=10, faults=2, **counts), Least(accepted=10), seconds=7.4)


def test_the_table_has_a_line_for_each_part_and_the_time_of_all() -> None:
    lines = [line_of("kills", part()), line_of("broker", part(lost=1, changed=2))]
    assert table(lines, 61.2).splitlines() == [
        "storm   part    accepted  faults  reruns  verdict            seconds",
        "kills   a part  10        2       0       held               7",
        "broker  a part  10        2       0       lost=1, changed=2  7",
        "total: 61 s",
    ]


def test_a_part_that_did_too_little_has_not_held() -> None:
    little = Part("a part", Verdict(), Least(accepted=1))
    assert line_of("kills", little).verdict == "vacuous"


@pytest.mark.parametrize("bug", FOUND_BY)
def test_a_planted_bug_is_found_by_the_promises_that_it_breaks_and_by_no_other(
    bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    its_own = FOUND_BY[bug].promises
    assert its_own
    assert its_own <= set(PROMISES)

    def found(*broken: str) -> bool:
        def run(name: str, order: Order) -> Iterator[Part]:
            yield part()
            yield part(**dict.fromkeys(broken, 1))

        monkeypatch.setattr(command, "_run", run)
        lines: list[Line] = []
        order = Order(folder=Path(), stage=cast("Stage", None), seed=1, planted=bug)
        outcome = command._finds("kills", order, lines)
        assert ("NOT FOUND" in lines[0].verdict) is not outcome
        return outcome

    assert all(found(promise) for promise in its_own)
    assert not found(*(set(PROMISES) - its_own))
    assert not found()
