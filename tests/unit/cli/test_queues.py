"""`forebay queues`."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.cli.conftest import FakeService, Ran

QUEUES = [
    {"model": "echo", "lane": "high", "waiting": 0, "running": 0, "workers": 2},
    {"model": "echo", "lane": "normal", "waiting": 12, "running": 3, "oldest_s": 4.25, "workers": 2, "rate_per_s": 1.5},
]


def test_each_lane_has_its_line(fake: FakeService, forebay: Callable[..., Ran]) -> None:
    fake.answers("GET /v1/queues", {"queues": QUEUES})
    ran = forebay("queues")
    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["model", "lane", "waiting", "running", "oldest", "workers", "rate"],
        ["echo", "high", "0", "0", "2"],
        ["echo", "normal", "12", "3", "4.2", "s", "2", "1.50/s"],
    ]


def test_programs_get_json(fake: FakeService, forebay: Callable[..., Ran]) -> None:
    fake.answers("GET /v1/queues", {"queues": QUEUES})
    assert forebay("queues", "--json").json == QUEUES


def test_no_models_are_told(fake: FakeService, forebay: Callable[..., Ran]) -> None:
    fake.answers("GET /v1/queues", {"queues": []})
    assert "no models" in forebay("queues").err
