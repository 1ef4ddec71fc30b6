"""What a consumer leaves behind that is killed, stopped or cut off. Each on a real broker, in real processes."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.kafka.queues import CHANNEL, KafkaPlace, counts, number_of, publish, receive_all, until

from dev.kafka.broker import Broker

pytestmark = pytest.mark.anyio


async def test_after_a_kill_what_had_begun_counts_an_attempt_and_what_was_done_is_done(place: KafkaPlace) -> None:
    async with place.queue() as queue, place.child() as child:
        await publish(queue, range(20))
        assert sorted(await child.receive(20)) == list(range(20))
        assert await child.tell("begin", [0, 1, 2, 3]) == "begun"
        await child.tell("ack", [1, 5, 17, 18])
        assert await child.tell("begin", [2, 6]) == "begun"  # and what was acknowledged is committed with it
        await child.kill()

        again = counts(await receive_all(queue.consumer(CHANNEL), 16))
    begun_once, begun_twice = dict.fromkeys([0, 3, 6], (1, 1)), {2: (2, 1)}
    fresh = {number: (0, 0) for number in range(20) if number not in (0, 1, 2, 3, 5, 6, 17, 18)}
    assert again == begun_once | begun_twice | fresh


async def test_what_was_acknowledged_in_any_order_survives_a_kill_a_moment_later(place: KafkaPlace) -> None:
    async with place.queue() as queue, place.child() as child:
        await publish(queue, range(200))
        await child.receive(200)
        await child.tell("ack", list(range(199, 0, -2)))

        async def committed() -> bool:
            return await queue.depth(CHANNEL) == 100

        await until(committed)  # within a second: nobody has asked for it
        await child.kill()

        again = await receive_all(queue.consumer(CHANNEL), 100)
        assert sorted(counts(again)) == list(range(0, 200, 2))


async def test_interruptions_add_up_over_kills_and_a_word_ends_them(place: KafkaPlace) -> None:
    async with place.queue() as queue:
        await publish(queue, [0, 1])
        for death in range(2):
            async with place.child() as child:
                received = await child.tell("receive", count=2)
                assert sorted(received) == [[0, death, death], [1, death, 0]]
                await child.tell("begin", [0, 1])
                await child.tell("nack", [1])
                await child.kill()
        again = counts(await receive_all(queue.consumer(CHANNEL), 2))
    assert again == {0: (2, 2), 1: (2, 0)}


async def test_a_stopped_consumer_that_wakes_up_can_undo_nothing(place: KafkaPlace) -> None:
    async with place.queue() as queue, place.child() as child:
        await publish(queue, range(12))
        await child.receive(12)
        await child.tell("begin", [0, 1, 2])
        await child.tell("ack", [0])
        await child.tell("begin", [1])  # so that the acknowledgement is committed
        child.signal(signal.SIGSTOP)

        consumer = queue.consumer(CHANNEL)
        taken = {number_of(one): one for one in await receive_all(consumer, 11)}
        assert {number: (one.attempt, one.interruptions) for number, one in taken.items()} == {
            1: (2, 1),
            2: (1, 1),
            **dict.fromkeys(range(3, 12), (0, 0)),
        }
        await consumer.begin([taken[3]])
        await consumer.ack([taken[number] for number in (1, 4, 5)])
        await queue.depth(CHANNEL)  # commits it

        child.signal(signal.SIGCONT)
        await child.tell("ack", [2, 6])
        assert await child.tell("begin", [7, 8]) == "revoked"
        assert await child.tell("holds", list(range(12))) == []
        await child.tell("ack", [7, 8, 9])
        await child.kill()

        assert all(consumer.holds(taken[number]) for number in (2, 3, 6, 7, 8, 9, 10, 11))
        await consumer.close()
        left = counts(await receive_all(queue.consumer(CHANNEL), 8))
    assert left == {2: (1, 1), 3: (1, 1), **dict.fromkeys(range(6, 12), (0, 0))}


@pytest.mark.parametrize(
    ("point", "what", "left"),
    [
        ("kafka.before_begin_commit", "begin", {0: (0, 0), 1: (1, 0)}),
        ("kafka.after_commit", "begin", {0: (1, 1), 1: (1, 0)}),
        # Before it is in the retry topic it is in its channel only; afterwards in both, until the next owner ends one.
        ("kafka.before_produce", "delay", {0: (0, 0), 1: (1, 0)}),
        ("kafka.after_delivery", "delay", {0: (0, 0), 1: (1, 0)}),
    ],
)
async def test_a_death_between_any_two_steps_loses_nothing(
    kafka: Broker, point: str, what: str, left: dict[int, tuple[int, int]]
) -> None:
    place = KafkaPlace(kafka.bootstrap, partitions=1)
    async with place.queue() as queue, place.child() as child:
        await publish(queue, [0, 1])
        await child.receive(2)
        await child.tell("begin", [1])
        await child.tell("nack", [1])
        await child.dies(point, what, [0])

        consumer = queue.consumer(CHANNEL)
        again = await receive_all(consumer, 2)
        assert counts(again) == left
        await consumer.ack(again)
        forwarding = asyncio.create_task(queue.forward_delayed())
        copies = await consumer.receive(2, 2.0)
        assert counts(copies) == ({0: (0, 0)} if point == "kafka.after_delivery" else {})
        forwarding.cancel()
        await asyncio.wait([forwarding])
