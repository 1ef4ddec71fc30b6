"""Publishes leave together under load and alone at once; what leaves together goes to one partition."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from forebay.adapters.kafka.gathering import LIST_EVERY_S, Nagle, Turns

MANY = 100
LONG_S = 60.0


class Publishes:
    """Enter a Nagle and stay in it until they are ended by name."""

    def __init__(self, nagle: Nagle) -> None:
        self._nagle = nagle
        self._ends: dict[str, asyncio.Event] = {}
        self.departures: dict[str, int] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.entered = asyncio.Event()

    async def begin(self, *names: str) -> None:
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._publish(name))
        await turns_of_the_loop()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await turns_of_the_loop()

    async def _publish(self, name: str) -> None:
        async with self._nagle:
            self.departures[name] = self._nagle.departure
            self.entered.set()
            await self._ends[name].wait()


async def turns_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_alone_does_not_wait() -> None:
    publishes = Publishes(Nagle(LONG_S, MANY))
    await publishes.begin("a")
    assert publishes.departures == {"a": 1}
    await publishes.end("a")
    await publishes.begin("b")
    assert publishes.departures == {"a": 1, "b": 2}
    await publishes.end("b")


async def test_those_that_come_meanwhile_leave_together_when_one_has_ended() -> None:
    publishes = Publishes(Nagle(LONG_S, MANY))
    await publishes.begin("a")
    await publishes.begin("b")
    await publishes.begin("c")
    assert publishes.departures == {"a": 1}
    await publishes.end("a")
    assert publishes.departures == {"a": 1, "b": 2, "c": 2}
    await publishes.end("b", "c")


async def test_they_leave_after_a_time_even_if_none_has_ended() -> None:
    publishes = Publishes(Nagle(0.001, MANY))
    await publishes.begin("a", "b")
    publishes.entered.clear()
    async with asyncio.timeout(LONG_S):
        await publishes.entered.wait()
    assert publishes.departures == {"a": 1, "b": 2}
    await publishes.end("a", "b")


async def test_they_leave_when_there_are_enough_of_them_even_if_none_has_ended() -> None:
    publishes = Publishes(Nagle(LONG_S, 2))
    await publishes.begin("a", "b")
    assert publishes.departures == {"a": 1}
    await publishes.begin("c")
    assert publishes.departures == {"a": 1, "b": 2, "c": 2}
    await publishes.begin("d")
    assert "d" not in publishes.departures
    await publishes.end("b")
    assert publishes.departures["d"] == 3
    await publishes.end("a", "c", "d")


async def test_one_that_is_cancelled_while_it_waits_holds_up_nobody() -> None:
    publishes = Publishes(Nagle(LONG_S, MANY))
    await publishes.begin("a", "b", "c")
    publishes.tasks["b"].cancel()
    await turns_of_the_loop()
    await publishes.end("a")
    assert publishes.departures == {"a": 1, "c": 2}
    await publishes.end("c")
    await publishes.begin("d")  # at once: none is in flight
    assert publishes.departures["d"] == 3
    await publishes.end("d")


async def test_one_that_fails_lets_the_next_in() -> None:
    nagle = Nagle(LONG_S, MANY)
    publishes = Publishes(nagle)

    async def fail() -> None:
        async with nagle:
            await publishes.begin("a")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    await turns_of_the_loop()
    assert publishes.departures == {"a": 2}
    await publishes.end("a")


class Cluster:
    """Stands in for a producer that is asked for the partitions of topics."""

    def __init__(self, **counts: int) -> None:
        self.counts = counts
        self.asked: list[str] = []

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        self.asked.append(topic)
        if topic not in self.counts:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=range(self.counts[topic]))})


def learned(turns: Turns, cluster: Cluster, now: float) -> None:
    producer: Producer = cluster  # type: ignore[assignment]  # it has what is asked of it
    turns.learn(producer, now)


def test_a_topic_whose_partitions_are_not_known_is_left_to_the_keys_hash() -> None:
    turns, cluster = Turns(), Cluster()
    assert turns.partition("t", 5) == -1
    learned(turns, cluster, LIST_EVERY_S)
    assert cluster.asked == ["t"]
    assert turns.partition("t", 5) == -1


def test_departures_take_the_partitions_in_turns_those_that_are_added_too() -> None:
    turns, cluster = Turns(), Cluster(t=3)
    turns.partition("t", 0)
    learned(turns, cluster, LIST_EVERY_S)
    assert [turns.partition("t", departure) for departure in range(6)] == [0, 1, 2, 0, 1, 2]
    cluster.counts["t"] = 4
    learned(turns, cluster, LIST_EVERY_S + 1)  # too soon to ask again
    assert {turns.partition("t", departure) for departure in range(12)} == {0, 1, 2}
    learned(turns, cluster, 2 * LIST_EVERY_S)
    assert {turns.partition("t", departure) for departure in range(12)} == {0, 1, 2, 3}
