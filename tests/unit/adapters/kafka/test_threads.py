"""A thread that reads goes on whatever happens to its consumer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest
import structlog

from forebay.adapters.kafka import control, follower
from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.fleet import KafkaFleet
from forebay.adapters.kafka.follower import Follower, FollowerPlan
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.offsets import Offsets
from forebay.adapters.kafka.shelves import Shelves
from forebay.testing.clock import HandClock

WITHIN_S = 10.0
LINK = KafkaLink(bootstrap="127.0.0.1:1")


class Consumers:
    """The first cannot be made, the second cannot be closed once it failed, the third is there to stay."""

    def __init__(self, **methods: Any) -> None:
        self._methods = methods
        self.made = 0
        self.third = threading.Event()

    def __call__(self, config: dict[str, Any]) -> Any:
        self.made += 1
        if self.made == 1:
            raise RuntimeError("cannot be made")
        if self.made == 3:
            self.third.set()
        return Broken(self.made == 2)


class Broken:
    def __init__(self, broken: bool) -> None:
        self._broken = broken

    def assign(self, places: object) -> None:
        pass

    def poll(self, timeout_s: float) -> None:
        if self._broken:
            raise ZeroDivisionError

    def close(self) -> None:
        if self._broken:
            raise RuntimeError("cannot be closed")


class NoSources:
    def sources(self) -> list[str]:
        return []


async def test_the_ear_on_the_control_topic_listens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    consumers = Consumers()
    monkeypatch.setattr(control, "Consumer", consumers)
    monkeypatch.setattr(control, "AGAIN_S", 0.0)
    ear = ControlEar(LINK)
    ear.listen("fleet", lambda rest, record: None)
    with structlog.testing.capture_logs() as logs:
        ear.open()
        assert await asyncio.to_thread(consumers.third.wait, WITHIN_S)
        await ear.close()
    assert [line["event"] for line in logs] == ["control.ear_failed"] * 2


def test_the_follower_of_the_log_opens_its_consumers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    consumers = Consumers()
    monkeypatch.setattr(follower, "Consumer", consumers)
    monkeypatch.setattr(follower, "RETRY_S", 0.0)
    one = Follower(LINK, FollowerPlan(whole=True), Shelves(), cast("Offsets", NoSources()))
    cuts = iter([True])
    monkeypatch.setattr(one, "_cut", lambda member: consumers.made == 2 and next(cuts))
    with structlog.testing.capture_logs() as logs:
        one.start(lambda: None)
        assert consumers.third.wait(WITHIN_S)
        one.stop()
    assert [line["event"] for line in logs] == ["event_log.follower_failed"] * 2


class Said:
    """A record of the control topic."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def key(self) -> bytes:
        return b"fleet/w/m/1"

    def value(self) -> bytes:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize(
    "value", [b'{"status":"\xff"}', b"no JSON", b'{"status":"strange"}', b'{"status":"ready","more":' + b"[" * 100_000]
)
async def test_a_value_that_nobody_can_read_ends_no_listening(value: bytes) -> None:
    ear = ControlEar(LINK)
    fleet = KafkaFleet(LINK, cast("Any", None), ear, clock=lambda: 0.0, monotonic=HandClock())
    with structlog.testing.capture_logs() as logs:
        ear._hear(cast("Any", Said(value)))
    assert [line["event"] for line in logs] == ["fleet.malformed"]
    assert await fleet.reports() == []
