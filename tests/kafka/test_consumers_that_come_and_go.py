"""Partitions that move while there is work in hand."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.kafka.queues import (
    CHANNEL,
    WITHIN_S,
    KafkaPlace,
    Work,
    counts,
    number_of,
    publish,
    receive_all,
    served,
    until,
)

from dev.kafka.broker import Broker
from forebay.adapters.kafka.flow import PRESSED_S
from forebay.core.errors import Revoked
from forebay.core.message import ReceivedMessage
from forebay.ports.queue import Consumer

pytestmark = pytest.mark.anyio


async def test_nothing_runs_twice_when_consumers_come_and_leave_in_peace(place: KafkaPlace) -> None:
    work, total = Work(), 600
    async with place.queue() as queue, asyncio.TaskGroup() as tasks:
        stops = []

        def join() -> None:
            stops.append(asyncio.Event())
            tasks.create_task(work.run(queue.consumer(CHANNEL), stops[-1]))

        join()
        for turn in range(6):
            await publish(queue, range(turn * 100, turn * 100 + 100))
            join()
            await served(work, turn * 100 + 40)
            stops[turn].set()
        await served(work, total)
        stops[-1].set()
    assert work.done == Counter(range(total))
    assert work.begun == Counter(range(total))
    assert work.attempts == {(0, 0)}


async def test_what_runs_when_a_partition_goes_may_end_first(place: KafkaPlace) -> None:
    """And what has not begun is taken over at once, as if nobody had had it."""
    async with place.queue(drain_s=WITHIN_S) as queue:
        one, two = queue.consumer(CHANNEL), queue.consumer(CHANNEL)
        await publish(queue, range(40))
        received = await receive_all(one, 40)
        running, resting = received[::2], received[1::2]
        await one.begin(running)
        joining = asyncio.create_task(two.receive(40, WITHIN_S))

        async def some_are_gone() -> bool:
            return not all(one.holds(each) for each in resting)

        await until(some_are_gone)
        assert all(one.holds(each) for each in running)
        assert not joining.done()  # its partitions come when they are drained
        await one.ack(running)
        taken = await joining + await two.receive(40, 1.0)

        gone = {number_of(each) for each in resting if not one.holds(each)}
        assert set(counts(taken)) <= gone
        await receive_all_of(two, taken, gone)
        assert set(counts(taken).values()) == {(0, 0)}
        assert await queue.depth(CHANNEL) == len(resting)


async def receive_all_of(consumer: Consumer, taken: list[ReceivedMessage], numbers: set[int]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while set(counts(taken)) != numbers:
            taken += await consumer.receive(40, 1.0)


async def test_what_still_runs_when_its_time_is_over_goes_as_an_attempt_and_no_interruption(place: KafkaPlace) -> None:
    async with place.queue(drain_s=0.2) as queue:
        one, two = queue.consumer(CHANNEL), queue.consumer(CHANNEL)
        await publish(queue, range(40))
        received = await receive_all(one, 40)
        await one.begin(received)
        taken = await two.receive(40, WITHIN_S)
        gone = [each for each in received if not one.holds(each)]
        assert gone
        await receive_all_of(two, taken, {number_of(each) for each in gone})
        assert set(counts(taken).values()) == {(1, 0)}

        # Its outcome is published all the same, but no word of its first holder counts any more.
        with pytest.raises(Revoked):
            await one.begin(gone[:1])
        await one.ack(gone)
        await one.nack(gone)
        assert all(two.holds(each) for each in taken)
        assert await queue.depth(CHANNEL) == 40


async def test_more_consumers_than_partitions_and_more_partitions_than_consumers_both_drain(kafka: Broker) -> None:
    for partitions, consumers in ((1, 3), (12, 1)):
        place = KafkaPlace(kafka.bootstrap, partitions=partitions)
        async with place.queue() as queue, asyncio.TaskGroup() as tasks:
            work, stop = Work(), asyncio.Event()
            for _ in range(consumers):
                tasks.create_task(work.run(queue.consumer(CHANNEL), stop))
            await publish(queue, range(200))
            await served(work, 200)
            stop.set()
        assert sorted(work.done) == list(range(200))


async def test_a_pause_under_back_pressure_loses_and_repeats_nothing(kafka: Broker) -> None:
    """Everything is paused when a busy consumer has asked for nothing for a second, and fetched again after it."""
    place = KafkaPlace(kafka.bootstrap)
    async with place.queue() as queue:
        await publish(queue, range(1500))
        consumer = queue.consumer(CHANNEL)
        seen: Counter[int] = Counter()
        for most in (10, 300, 40):
            received = await receive_all(consumer, most)
            await consumer.begin(received)
            await asyncio.sleep(1.5)  # time itself is what is tried
            seen.update(map(number_of, received))
            await consumer.ack(received)
        while len(seen) < 1500:
            received = await receive_all(consumer, 1)
            seen.update(map(number_of, received))
            await consumer.ack(received)
        assert await consumer.receive(1, 1.0) == []
        assert seen == Counter(range(1500))


@pytest.mark.parametrize("group_protocol", ["consumer", "classic"])
async def test_a_partition_that_went_while_it_was_paused_is_read_when_it_comes_back(
    kafka: Broker, group_protocol: str
) -> None:
    """librdkafka remembers the pause, whoever had the partition meanwhile."""
    place = KafkaPlace(kafka.bootstrap, partitions=2, group_protocol=group_protocol)
    async with place.queue(drain_s=0.1) as queue:
        await publish(queue, range(200))
        one, two = queue.consumer(CHANNEL), queue.consumer(CHANNEL)
        seen: set[int] = set()
        received = await receive_all(one, 40)
        await one.begin(received)
        await asyncio.sleep(PRESSED_S + 0.5)  # without room for so long all is paused: time itself is what is tried
        assert await receive_all(two, 1)
        while received:  # until nothing is left of what is still its own
            seen.update(map(number_of, received))
            await one.ack(received)
            received = await one.receive(40, 2.0)
        assert 0 < len(seen) < 200
        await two.close()
        while len(seen) < 200:
            received = await receive_all(one, 1)
            seen.update(map(number_of, received))
            await one.ack(received)


@pytest.mark.parametrize("group_protocol", ["consumer", "classic"])
async def test_a_job_may_take_longer_than_the_poll_interval(kafka: Broker, group_protocol: str) -> None:
    place = KafkaPlace(kafka.bootstrap, group_protocol=group_protocol, max_poll_interval_s=6.0)
    async with place.queue() as queue:
        consumer = queue.consumer(CHANNEL)
        await publish(queue, range(8))
        received = await receive_all(consumer, 8)
        await consumer.begin(received)
        await consumer.ack(received[1:])
        assert await consumer.receive(8, 9.0) == []
        assert consumer.holds(received[0])
        await consumer.begin(received[:1])
        await consumer.ack(received[:1])
        assert await queue.depth(CHANNEL) == 0


async def test_a_partition_with_no_room_for_more_marks_stops_alone_and_recovers(kafka: Broker) -> None:
    """3,000 messages in each of two partitions; those of one stay in hand, the other goes on."""
    place = KafkaPlace(kafka.bootstrap, partitions=2)
    async with place.queue() as queue:
        by_partition = [set(range(3000)), set(range(3000, 6000))]
        for partition, numbers in enumerate(by_partition):
            await place.publish_to(partition, sorted(numbers))
        consumer = queue.consumer(CHANNEL)
        stuck: list[ReceivedMessage] = []
        done: set[int] = set()
        async with asyncio.timeout(WITHIN_S):
            while (received := await consumer.receive(100, 1.0)) or len(done) < len(by_partition[1]):
                stuck += [each for each in received if number_of(each) in by_partition[0]]
                moving = [each for each in received if number_of(each) in by_partition[1]]
                await consumer.ack(moving)
                done |= set(counts(moving))
        assert 500 < len(stuck) < 1000
        await consumer.begin(stuck[::2])
        assert await queue.depth(CHANNEL) == 3000

        finished = 0
        async with asyncio.timeout(WITHIN_S):
            while finished < 3000:
                await consumer.ack(stuck)
                finished += len(stuck)
                stuck = await consumer.receive(500, 5.0)
        assert await queue.depth(CHANNEL) == 0
