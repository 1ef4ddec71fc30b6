"""A client is dead once its statistics show no broker for longer than a new beginning takes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from confluent_kafka import Producer

from forebay.adapters.kafka.lifeline import CERTAIN_AFTER, Lifeline
from forebay.adapters.kafka.link import KafkaLink


def look(lifeline: Lifeline, *sources: str) -> None:
    brokers = {f"{source}-{number}": {"source": source} for number, source in enumerate(sources)}
    statistics = msgspec.json.encode({"name": "rdkafka#1", "brokers": brokers, "topics": {}})
    stats_cb: Callable[[str], None] = lifeline.settings["stats_cb"]
    stats_cb(statistics.decode())


@pytest.mark.parametrize("left", [(), ("logical",), ("internal", "logical")])
def test_without_any_broker_it_is_cut(left: tuple[str, ...]) -> None:
    lifeline = Lifeline()
    for _ in range(CERTAIN_AFTER):
        assert not lifeline.cut
        look(lifeline, *left)
    assert lifeline.cut
    lifeline.renew()
    assert not lifeline.cut


@pytest.mark.parametrize("left", ["configured", "learned"])
def test_a_broker_that_is_away_may_come_back(left: str) -> None:
    lifeline = Lifeline()
    for _ in range(CERTAIN_AFTER):
        look(lifeline, "logical", left)
    assert not lifeline.cut


def test_one_look_without_a_broker_is_a_new_beginning() -> None:
    lifeline = Lifeline()
    for _ in range(CERTAIN_AFTER):
        look(lifeline)
        look(lifeline, "configured")
    assert not lifeline.cut


def test_a_client_that_has_not_met_anybody_yet_is_not_cut() -> None:
    lifeline = Lifeline()
    client = Producer(KafkaLink(bootstrap="127.0.0.1:1").config(**{**lifeline.settings, "statistics.interval.ms": 10}))
    looks = 0
    while looks <= CERTAIN_AFTER:
        looks += client.poll(10)
    assert not lifeline.cut
