"""The publisher on a real broker: what it says of a record is true, and it says it in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from tests.kafka.client import WITHIN_S, consume, create_topic, frozen

from dev.kafka.broker import Broker
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record, key_of
from forebay.core.errors import OutcomeUnknown, PayloadTooLarge, Unavailable

ANSWER_WITHIN_S = 3.0
BACK_WITHIN_S = 5.0
WAIT_S = 2.5
POLL_S = 0.01
HEADERS = [("ce_id", "µ".encode()), ("empty", b"")]

pytestmark = pytest.mark.anyio


def record(topic: str, number: int = 1, value: bytes = b"value") -> Record:
    return Record(topic, key_of("default", f"job-{number}"), value, HEADERS)


@contextlib.asynccontextmanager
async def publisher(bootstrap: str, **settings: Any) -> AsyncIterator[Publisher]:
    one = Publisher(KafkaLink(bootstrap=bootstrap), **{"warm_up_s": 0.0, **settings})
    await one.open(WITHIN_S)
    try:
        yield one
    finally:
        await one.close(timeout_s=0.1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is set in another thread
            await asyncio.sleep(POLL_S)


async def test_what_was_published_is_in_the_log_as_it_was_sent(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    async with publisher(kafka.bootstrap) as one:
        await one.publish([record(topic, n, b"%d" % n) for n in range(50)], wait_s=WITHIN_S)
        await asyncio.gather(*[one.publish([record(topic, n, b"%d" % n)], wait_s=WITHIN_S) for n in range(50, 100)])
    messages = consume(kafka.bootstrap, topic, 100, group_protocol="classic")
    assert {(message.key(), message.value()) for message in messages} == {
        (b"default/job-%d" % n, b"%d" % n) for n in range(100)
    }
    assert all(message.headers() == HEADERS for message in messages)


async def test_nothing_to_publish_is_done_at_once(kafka: Broker) -> None:
    async with publisher(kafka.bootstrap) as one:
        await one.publish([], wait_s=0.0)


async def test_a_broker_that_was_killed_is_unknown_then_unavailable_and_each_is_said_in_time(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    async with publisher(kafka.bootstrap) as one:
        await one.publish([record(topic)], wait_s=WAIT_S)
        kafka.kill()
        async with asyncio.timeout(ANSWER_WITHIN_S):
            with pytest.raises(Unavailable):  # unknown if it was handed over before the loss was noticed
                await one.publish([record(topic)], wait_s=WAIT_S)
        await until(lambda: not one.up)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            with pytest.raises(Unavailable, match="no Kafka broker can be reached") as caught:
                await one.publish([record(topic)], wait_s=WAIT_S)
        assert not isinstance(caught.value, OutcomeUnknown)

        await asyncio.to_thread(kafka.start)
        async with asyncio.timeout(BACK_WITHIN_S):
            await until(lambda: one.up)
            await one.publish([record(topic)], wait_s=WAIT_S)


async def test_a_broker_that_hangs_is_unknown_then_unavailable(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    async with publisher(kafka.bootstrap) as one:
        await one.publish([record(topic)], wait_s=WAIT_S)
        with frozen(kafka):
            async with asyncio.timeout(ANSWER_WITHIN_S):
                with pytest.raises(OutcomeUnknown) as caught:
                    await one.publish([record(topic, 7)], wait_s=WAIT_S)
            assert caught.value.job_id == "job-7"
            await until(lambda: not one.up)
            with pytest.raises(Unavailable, match="no Kafka broker can be reached"):
                await one.publish([record(topic)], wait_s=WAIT_S)
        async with asyncio.timeout(BACK_WITHIN_S):
            await until(lambda: one.up)
            await one.publish([record(topic, 8)], wait_s=WAIT_S)


async def test_it_opens_without_a_broker_and_works_once_there_is_one(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    kafka.kill()
    async with publisher(kafka.bootstrap) as one:
        assert not one.up
        await asyncio.to_thread(kafka.start)
        async with asyncio.timeout(BACK_WITHIN_S):
            await until(lambda: one.up)
            await one.publish([record(topic)], wait_s=WAIT_S)


async def test_a_full_queue_refuses_at_once(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    async with publisher(kafka.bootstrap, queue_bytes=64 * 1024) as one:
        await one.publish([record(topic)], wait_s=WAIT_S)
        with frozen(kafka):
            filling = asyncio.create_task(
                one.publish([record(topic, n, b"x" * 1000) for n in range(100)], wait_s=WITHIN_S)
            )
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="queue to Kafka is full") as caught:
                await one.publish([record(topic, value=b"x" * 1000)], wait_s=WAIT_S)
            assert not isinstance(caught.value, OutcomeUnknown)
            assert not filling.done()
        await filling  # what waited for room has had it


async def test_more_than_the_queue_holds_goes_through_bit_by_bit(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    async with publisher(kafka.bootstrap, queue_bytes=64 * 1024) as one:
        await one.publish([record(topic, n, b"x" * 1000) for n in range(500)], wait_s=WITHIN_S)
    assert len(consume(kafka.bootstrap, topic, 500, group_protocol="classic")) == 500


async def test_what_finds_no_room_in_time_is_unknown(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    async with publisher(kafka.bootstrap, queue_bytes=64 * 1024) as one:
        await one.publish([record(topic)], wait_s=WAIT_S)
        with frozen(kafka), pytest.raises(OutcomeUnknown):
            await one.publish([record(topic, n, b"x" * 1000) for n in range(100)], wait_s=0.2)


async def test_a_record_above_our_limit_is_refused_with_the_limit_and_nothing_is_sent(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    async with publisher(kafka.bootstrap, max_record_bytes=10_000) as one:
        with pytest.raises(PayloadTooLarge) as caught:
            await one.publish([record(topic, 1), record(topic, 2, b"x" * 10_000)], wait_s=WAIT_S)
        assert caught.value.limit_bytes == 10_000
        await one.publish([record(topic, 3, b"last")], wait_s=WAIT_S)
    [message] = consume(kafka.bootstrap, topic, 1, group_protocol="classic")
    assert message.value() == b"last"


async def test_a_record_above_the_limit_of_the_topic_is_refused(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap, settings={"max.message.bytes": "5000"})
    async with publisher(kafka.bootstrap) as one:
        with pytest.raises(PayloadTooLarge):
            await one.publish([record(topic, value=os.urandom(6000))], wait_s=WAIT_S)
        await one.publish([record(topic)], wait_s=WAIT_S)


async def test_a_topic_that_is_missing_is_unavailable_until_it_is_there(kafka: Broker) -> None:
    missing = create_topic(kafka.bootstrap) + ".missing"
    async with publisher(kafka.bootstrap) as one:
        with pytest.raises(Unavailable, match=r"Unknown topic|UNKNOWN_TOPIC") as caught:
            await one.publish([record(missing)], wait_s=WITHIN_S)
        assert not isinstance(caught.value, OutcomeUnknown)
        create_topic(kafka.bootstrap, name=missing)

        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(Unavailable):  # until the topic is known
                    await one.publish([record(missing)], wait_s=WITHIN_S)
                    break
                await asyncio.sleep(POLL_S)


async def test_closing_waits_for_what_was_handed_over(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    one = Publisher(KafkaLink(bootstrap=kafka.bootstrap), linger_ms=500, warm_up_s=0)
    await one.open()
    publishing = asyncio.create_task(one.publish([record(topic)], wait_s=WITHIN_S))
    await asyncio.sleep(0)
    await one.close(WITHIN_S)
    await publishing


async def test_closing_ends_in_time_and_leaves_nobody_waiting(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    one = Publisher(KafkaLink(bootstrap=kafka.bootstrap), warm_up_s=0)
    await one.open()
    await one.publish([record(topic)], wait_s=WAIT_S)
    with frozen(kafka):
        publishing = asyncio.create_task(one.publish([record(topic)], wait_s=WITHIN_S))
        await asyncio.sleep(0)
        async with asyncio.timeout(WITHIN_S / 2):  # the record was to be waited for twice as long
            await one.close(0.2)
            with pytest.raises(OutcomeUnknown):
                await publishing


async def test_a_producer_that_failed_for_good_is_replaced(kafka: Broker) -> None:
    topic = create_topic(kafka.bootstrap)
    made: list[FailingProducer] = []

    def make(config: dict[str, Any]) -> Producer:
        made.append(FailingProducer(config))
        return made[-1]

    async with publisher(kafka.bootstrap, producer=make, linger_ms=5000) as one:
        publishing = asyncio.create_task(one.publish([record(topic)], wait_s=WITHIN_S))
        await asyncio.sleep(0)
        made[0].fail()
        with pytest.raises(OutcomeUnknown):
            await publishing
        await until(lambda: len(made) == 2)
    async with publisher(kafka.bootstrap, producer=make) as one:
        made[-1].fail()
        await until(lambda: len(made) == 4)
        await until(lambda: one.up)
        await one.publish([record(topic, value=b"after")], wait_s=WITHIN_S)
    [message] = consume(kafka.bootstrap, topic, 1, group_protocol="classic")
    assert message.value() == b"after"


class FailingProducer(Producer):
    """A real one, of which a test says when it has failed for good. It then raises when it is polled, as real ones do
    (test_acls.py has one whose failure is real as well)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._failing = False

    def fail(self) -> None:
        self._failing = True

    def poll(self, timeout: float = -1) -> int:
        served = super().poll(timeout)
        if self._failing:
            self._failing = False
            raise KafkaException(KafkaError(KafkaError._FATAL, "planted", fatal=True))
        return served
