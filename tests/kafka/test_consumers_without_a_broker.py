"""Brokers that go away under consumers that work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.kafka.queues import CHANNEL, WITHIN_S, KafkaPlace, Work, counts, number_of, publish, receive_all, served

from forebay.core.errors import Unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KINDS = [("kafka", "consumer"), ("kafka", "classic"), ("old_kafka", "classic")]


@pytest.fixture(params=KINDS, ids=["-".join(kind) for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> tuple[Any, str]:
    name, group_protocol = request.param
    return request.getfixturevalue(name), group_protocol


async def test_consumers_go_on_after_a_hard_bounce_and_nothing_is_lost(kind: tuple[Any, str]) -> None:
    broker, group_protocol = kind
    place = KafkaPlace(broker.bootstrap, group_protocol=group_protocol)
    work, stop, total = Work(), asyncio.Event(), 2000

    async def keep_publishing(first: int) -> None:
        for start in range(first, first + total // 2, 50):
            async with asyncio.timeout(WITHIN_S):
                while True:  # what nobody can say is published again: the same jobs
                    try:
                        await publish(queue, range(start, start + 50))
                        break
                    except Unavailable as away:
                        await asyncio.sleep(away.retry_after_s)

    async with place.queue() as queue, asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(work.run(queue.consumer(CHANNEL), stop))
        publishing = tasks.create_task(keep_publishing(0))
        await served(work, 300)
        await asyncio.to_thread(broker.bounce, hard=True)
        await publishing
        await keep_publishing(total // 2)
        await served(work, total)
        stop.set()
    async with place.queue() as queue:
        assert await queue.depth(CHANNEL) == 0
    assert sorted(work.done) == list(range(total))


async def test_what_cannot_be_recorded_has_not_begun(kind: tuple[Any, str]) -> None:
    broker, group_protocol = kind
    # A session longer than the broker is away: a member that is cut off for longer loses its partitions.
    place = KafkaPlace(broker.bootstrap, group_protocol=group_protocol, begin_wait_s=1.5, session_timeout_s=60.0)
    async with place.queue() as queue:
        await publish(queue, range(3))
        consumer = queue.consumer(CHANNEL)
        received = {number_of(one): one for one in await receive_all(consumer, 3)}
        await consumer.begin([received[0]])
        await asyncio.to_thread(broker.kill)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await consumer.begin([received[0], received[1]])
        await consumer.ack([received[2]])  # needs nobody
        assert [consumer.holds(received[number]) for number in range(3)] == [True, True, False]
        await asyncio.to_thread(broker.start)

        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    await consumer.begin([received[1]])
                    break
                except Unavailable:  # until the broker is back
                    continue
        await consumer.close()
        assert counts(await receive_all(queue.consumer(CHANNEL), 2)) == {0: (1, 1), 1: (1, 1)}


async def test_a_consumer_closes_while_nobody_answers(kind: tuple[Any, str]) -> None:
    broker, group_protocol = kind
    place = KafkaPlace(broker.bootstrap, group_protocol=group_protocol)
    async with place.queue() as queue:
        await publish(queue, range(3))
        consumer = queue.consumer(CHANNEL)
        received = await receive_all(consumer, 3)
        await consumer.begin(received)
        await asyncio.to_thread(broker.kill)
        await consumer.ack(received[:1])
        async with asyncio.timeout(WITHIN_S / 2):
            await consumer.close()
        assert not any(map(consumer.holds, received))
