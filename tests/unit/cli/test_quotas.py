"""Quotas are set, listed and cleared from a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Ran

Forebay = Callable[..., Ran]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_set_is_listed_and_what_is_left_out_stays(forebay: Forebay) -> None:
    assert forebay("quotas", "set", "acme", "--per-minute", "60").out == "acme: jobs_per_minute 60\n"
    assert forebay("quotas", "set", "acme", "--outstanding", "5").code == 0
    assert forebay("quotas", "set", "rival", "--per-day", "0").code == 0
    assert forebay("quotas", "ls", "--json").json == [
        {"tenant": "acme", "jobs_per_minute": 60, "jobs_outstanding": 5},
        {"tenant": "rival", "jobs_per_day": 0},
    ]
    assert "jobs per minute" in forebay("quotas", "ls").out


def test_a_cleared_one_is_gone_and_a_second_time_told(forebay: Forebay) -> None:
    forebay("quotas", "set", "acme", "--per-minute", "60")
    assert forebay("quotas", "clear", "acme").code == 0
    assert "no tenant has a quota" in forebay("quotas", "ls").err
    again = forebay("quotas", "clear", "acme")
    assert again.code != 0
    assert "quotas ls" in again.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["acme"], "at least one of --per-minute"),
        (["acme", "--per-day", "-1"], "greater than or equal to 0"),
        (["a b", "--per-day", "1"], "is no tenant"),
    ],
)
def test_what_cannot_be_set_is_told(forebay: Forebay, arguments: list[str], why: str) -> None:
    ran = forebay("quotas", "set", *arguments)
    assert ran.code != 0
    assert why in ran.err
