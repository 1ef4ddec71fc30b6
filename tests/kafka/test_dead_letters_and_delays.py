"""Records that leave their channel: as dead letters, or to wait."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import cast

import confluent_kafka
import pytest
from tests.kafka.client import consume, create_topic
from tests.kafka.queues import CHANNEL, WITHIN_S, KafkaPlace, counts, number_of, publish, receive_all
from tests.kafka.raw import produce_raw
from tests.kafka.test_topics import set_config

from dev.kafka.broker import Broker
from forebay.adapters.kafka.names import EVENTS_PARTITIONS
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.adapters.kafka.records import Headers, Record, from_record, headers_of, key_of, to_record
from forebay.core.event import EventKind, JobError
from forebay.core.wire import decode_event
from forebay.ports.queue import Consumer
from forebay.testing.samples import job_id, message

pytestmark = pytest.mark.anyio

KEY = key_of("default", job_id(1))
WIRE = ("forebay-wire", b"1")
MALFORMED: dict[str, tuple[Record, str]] = {
    "no key": (Record("", None, b"1", [WIRE]), "malformed_key"),
    "a key of nobody": (Record("", b"\xff\xfe", b"1", [WIRE]), "malformed_key"),
    "a header that is no text": (Record("", KEY, b"1", [WIRE, ("ce_type", b"\xff")]), "malformed_header"),
    "a foreign record that is no job": (
        Record("", b"k", b"1", [("content-type", b"application/cloudevents+json")]),
        "malformed_record",
    ),
}


@pytest.fixture
def place(kafka: Broker) -> KafkaPlace:
    return KafkaPlace(kafka.bootstrap)


async def dead_letters(place: KafkaPlace, count: int) -> list[confluent_kafka.Message]:
    topic = place.names.dlq_topic
    return await asyncio.to_thread(consume, place.link.bootstrap, topic, count, group_protocol="classic")


def pairs(record: confluent_kafka.Message) -> list[tuple[str, bytes]]:
    return [(str(name), value) for name, value in cast("list[tuple[str, bytes]]", record.headers())]


def headers(record: confluent_kafka.Message) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in pairs(record)}


async def test_a_malformed_record_becomes_a_dead_letter_and_stops_nobody(place: KafkaPlace) -> None:
    async with place.queue() as queue:
        for record, _ in MALFORMED.values():
            await place.publisher.publish(
                [Record(place.topic, record.key, record.value, record.headers, 0)], wait_s=WITHIN_S
            )
        await place.publish_to(0, range(10))
        consumer = queue.consumer(CHANNEL)
        received = await receive_all(consumer, 10)
        assert sorted(map(number_of, received)) == list(range(10))
        await consumer.ack(received)

        letters = await dead_letters(place, len(MALFORMED))
        for (record, code), letter in zip(MALFORMED.values(), letters, strict=True):
            said = headers(letter)
            assert (letter.key(), letter.value()) == (record.key, record.value)
            assert pairs(letter)[: len(record.headers)] == list(record.headers)
            assert said["forebay-error-code"] == code
            assert said["forebay-error-topic"] == place.topic
            assert said["forebay-error-group"] == place.names.worker_group(CHANNEL)
        assert [headers(letter)["forebay-error-offset"] for letter in letters] == ["0", "1", "2", "3"]
        assert await queue.depth(CHANNEL) == 0


async def test_a_record_with_a_header_whose_name_is_no_text_becomes_a_dead_letter_and_stops_nobody(
    place: KafkaPlace,
) -> None:
    """The client library fails on it, and the second time it ends the process; the first time too where Python has
    specialized the call, hence the many before."""
    async with place.queue() as queue:
        await place.publish_to(0, range(50))
        for wire in ([(b"forebay-wire", b"1")], []):
            headers_given = [*wire, (b"\xff\xfe", b"x")]
            await asyncio.to_thread(produce_raw, place.link.bootstrap, place.topic, KEY, b"the input", headers_given)
        await place.publish_to(0, range(50, 60))
        consumer = queue.consumer(CHANNEL)
        received = await receive_all(consumer, 60)
        assert sorted(map(number_of, received)) == list(range(60))
        await consumer.ack(received)
        for offset, letter in zip(("50", "51"), await dead_letters(place, 2), strict=True):
            said = headers(letter)
            assert (letter.key(), letter.value()) == (KEY, b"the input")
            assert said["forebay-error-code"] == "malformed_header"
            assert said["forebay-error-unreadable"] == "headers"
            assert said["forebay-error-offset"] == offset
        assert await queue.depth(CHANNEL) == 0


async def test_a_malformed_record_that_is_too_large_for_more_headers_goes_without_its_value(place: KafkaPlace) -> None:
    async with place.queue() as queue:
        value = b"x" * (place.publisher.max_record_bytes - 200)
        await place.publisher.publish([Record(place.topic, None, value, [WIRE])], wait_s=WITHIN_S)
        await publish(queue, [1])
        await receive_all(queue.consumer(CHANNEL), 1)
        [letter] = await dead_letters(place, 1)
        assert letter.value() is None
        assert headers(letter)["forebay-error-left-out"] == "value"


async def test_what_is_rejected_is_a_dead_letter_with_its_reason_once_reject_returns(place: KafkaPlace) -> None:
    async with place.queue() as queue:
        await publish(queue, [1], data=b"the input")
        consumer = queue.consumer(CHANNEL)
        received = await receive_all(consumer, 1)
        await consumer.begin(received)
        await consumer.reject(received, JobError(code="model_failed", message="no face " + "é" * 5000))
        [letter] = await dead_letters(place, 1)
        said = headers(letter)
        sent = message(1, data=b"the input")
        assert (letter.key(), letter.value()) == (KEY, b"the input")
        assert {name: said[name] for name in sent.headers} == sent.headers
        assert said["forebay-error-code"] == "model_failed"
        assert said["forebay-error-message"].startswith("no face é")
        assert said["forebay-error-attempt"] == "1"
        assert from_record(letter, headers_of(letter), place.names, place.link.clocks).job_id == job_id(1)


@contextlib.asynccontextmanager
async def forwarding(queue: KafkaQueue, count: int = 1) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(queue.forward_delayed()) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)


async def take_and_delay(consumer: Consumer, count: int, delay_s: float) -> None:
    received = await receive_all(consumer, count)
    await consumer.begin(received)
    await consumer.nack(received, delay_s)


async def test_a_delayed_message_comes_back_as_it_was_with_its_counts(place: KafkaPlace) -> None:
    async with place.queue() as queue, forwarding(queue):
        await publish(queue, [1], data=b"the input")
        async with place.child() as child:
            await child.receive(1)
            await child.tell("begin", [1])
            await child.kill()
        consumer = queue.consumer(CHANNEL)
        await take_and_delay(consumer, 1, 0.01)
        [again] = await receive_all(consumer, 1)
        assert again.message == message(1, data=b"the input")
        assert (again.attempt, again.interruptions) == (2, 1)
        await consumer.begin([again])
        await consumer.nack([again], 0.01)
        assert counts(await receive_all(consumer, 1)) == {1: (3, 1)}


async def test_several_forwarders_bring_each_message_once(place: KafkaPlace) -> None:
    async with place.queue() as queue:
        await publish(queue, range(300))
        consumer = queue.consumer(CHANNEL)
        await take_and_delay(consumer, 300, 0.01)
        async with forwarding(queue, 3):
            received = await receive_all(consumer, 300)
            assert sorted(map(number_of, received)) == list(range(300))
            assert await consumer.receive(1, 1.0) == []


async def test_a_long_delay_holds_up_no_short_one(place: KafkaPlace) -> None:
    """More of them than a forwarder looks at."""
    async with place.queue() as queue, forwarding(queue):
        await publish(queue, range(250))
        consumer = queue.consumer(CHANNEL)
        await take_and_delay(consumer, 250, 30.0)
        await publish(queue, [1000])
        await take_and_delay(consumer, 1, 0.01)
        assert counts(await receive_all(consumer, 1)) == {1000: (1, 0)}
        assert await consumer.receive(1, 0.5) == []


async def test_a_delay_beyond_the_longest_tier_goes_round_until_it_is_over(kafka: Broker) -> None:
    place = KafkaPlace(kafka.bootstrap)
    loop = asyncio.get_running_loop()
    async with place.queue(tiers={"short": 0.05}) as queue, forwarding(queue):
        await publish(queue, [1])
        consumer = queue.consumer(CHANNEL)
        received = await receive_all(consumer, 1)
        began = loop.time()
        await consumer.nack(received, 1.0)
        assert counts(await receive_all(consumer, 1)) == {1: (0, 0)}
        assert loop.time() - began >= 0.99


@pytest.mark.parametrize("wrong", [{}, {"forebay-due": "soon"}, {"forebay-channel": "nowhere"}])
async def test_a_delayed_record_without_a_way_back_is_a_dead_letter(place: KafkaPlace, wrong: dict[str, str]) -> None:
    async with place.queue() as queue, forwarding(queue):
        good = {"forebay-due": "0", "forebay-channel": f"{CHANNEL.model}/{CHANNEL.lane}"}
        topic = f"{place.names.retry_prefix}short"
        more: Sequence[dict[str, str]] = [{**good, **wrong} if wrong else {}, good]
        records = [to_record(topic, message(number), more=each) for number, each in enumerate(more)]
        await place.publisher.publish(records, wait_s=WITHIN_S)
        assert counts(await receive_all(queue.consumer(CHANNEL), 1)) == {1: (0, 0)}
        [letter] = await dead_letters(place, 1)
        assert headers(letter)["forebay-error-code"] == "malformed_header"
        assert headers(letter)["forebay-error-topic"] == topic


async def test_what_is_due_in_a_channel_that_is_gone_stops_no_other(place: KafkaPlace) -> None:
    async with place.queue(publish_wait_s=5.0) as queue, forwarding(queue):
        topic = f"{place.names.retry_prefix}short"
        ways = ["gone/normal", f"{CHANNEL.model}/{CHANNEL.lane}"]
        records = [
            to_record(topic, message(number), more={"forebay-due": "0", "forebay-channel": way})
            for number, way in enumerate(ways)
        ]
        await place.publisher.publish(records, wait_s=WITHIN_S)
        assert counts(await receive_all(queue.consumer(CHANNEL), 1)) == {1: (0, 0)}
        [again] = await asyncio.to_thread(
            consume, place.link.bootstrap, f"{place.names.retry_prefix}long", 1, group_protocol="classic"
        )
        assert again.key() == key_of("default", job_id(0))
        assert headers(again)["forebay-channel"] == "gone/normal"


async def test_what_its_channel_has_become_too_small_for_fails_and_stops_no_other(
    place: KafkaPlace, kafka: Broker
) -> None:
    """With an event, or its job would be queued for ever; the dead letter has the record."""
    create_topic(kafka.bootstrap, name=place.names.events_topic, partitions=EVENTS_PARTITIONS)
    async with place.queue() as queue:
        way = {"forebay-due": "0", "forebay-channel": f"{CHANNEL.model}/{CHANNEL.lane}", "forebay-attempt": "2"}
        topic = f"{place.names.retry_prefix}short"
        small, large = message(1), message(2, data=random.randbytes(5000))
        records = [to_record(topic, one, more=way) for one in (large, small)]
        await place.publisher.publish(records, wait_s=WITHIN_S)
        await asyncio.to_thread(set_config, kafka, place.topic, "max.message.bytes", "2000")
        async with forwarding(queue):
            consumer = queue.consumer(CHANNEL)
            assert counts(await receive_all(consumer, 1)) == {1: (2, 0)}
            [letter] = await dead_letters(place, 1)
            assert (letter.key(), letter.value()) == (key_of("default", job_id(2)), large.value)
            assert headers(letter)["forebay-error-code"] == "payload_too_large"
            [record] = await asyncio.to_thread(
                consume, place.link.bootstrap, place.names.events_topic, 1, group_protocol="classic"
            )
            event = decode_event(from_record(record, headers_of(record), place.names, place.link.clocks))
            assert (event.job_id, event.kind, event.attempt) == (job_id(2), EventKind.FAILED, 2)
            assert event.error is not None
            assert event.error.code == "payload_too_large"
            await publish(queue, [3])
            assert counts(await receive_all(consumer, 1)) == {3: (0, 0)}


async def test_a_stop_between_a_message_and_its_mark_brings_it_once(place: KafkaPlace) -> None:
    async with place.queue() as queue:
        consumer = queue.consumer(CHANNEL)
        await publish(queue, [1])
        await take_and_delay(consumer, 1, 0.01)
        written, confirmed = asyncio.Event(), asyncio.Event()
        append = place.publisher.publish

        async def slow(records: Sequence[Record], *, wait_s: float) -> None:
            await append(records, wait_s=wait_s)
            written.set()
            await confirmed.wait()

        place.publisher.publish = slow  # type: ignore[method-assign]  # its answer is late
        stopping = asyncio.create_task(queue.forward_delayed())
        await written.wait()
        stopping.cancel()
        await asyncio.sleep(0)
        confirmed.set()
        await asyncio.wait({stopping})
        async with forwarding(queue):
            assert counts(await receive_all(consumer, 1)) == {1: (1, 0)}
            assert await consumer.receive(1, 1.0) == []


async def test_a_foreign_record_keeps_its_name_and_its_time_over_a_delay(place: KafkaPlace) -> None:
    """Both come from where it stood first."""
    async with place.queue() as queue, forwarding(queue):
        anybodys: Headers = [("content-type", b"text/plain")]
        await place.publisher.publish([Record(place.topic, b"anything", b"hello", anybodys)], wait_s=WITHIN_S)
        consumer = queue.consumer(CHANNEL)
        [first] = await receive_all(consumer, 1)
        await consumer.begin([first])
        await consumer.nack([first], 0.01)
        [again] = await receive_all(consumer, 1)
        assert again.message == first.message
        assert again.attempt == 1
        assert again.message.headers["forebay-max-life-s"] == "86400.0"
