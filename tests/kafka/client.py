"""The few things that tests do with a broker."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # admin hands it on without exporting it

from forebay.adapters.kafka.offsets import LATEST
from forebay.adapters.kafka.publisher import Publisher

WITHIN_S = 30.0
ANSWER_WITHIN_S = 5.0
POLL_S = 0.5


def create_topic(
    bootstrap: str,
    *,
    name: str = "",
    partitions: int = 1,
    copies: int = 1,
    settings: Mapping[str, str] | None = None,
) -> str:
    """A new topic; its name. Returns when the broker serves it."""
    name = name or f"test.{uuid.uuid4().hex}"
    _create(bootstrap, [NewTopic(name, partitions, copies, config=dict(settings or {}))])
    until_served(bootstrap, {name: partitions})
    return name


def _create(bootstrap: str, topics: list[NewTopic]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while True:
        client = admin(bootstrap)  # kept until the answers are there: its end is the end of its requests
        answers = client.create_topics(topics, operation_timeout=ANSWER_WITHIN_S, request_timeout=ANSWER_WITHIN_S)
        try:
            for answer in answers.values():
                _created(answer)
        except TimeoutError:  # as in until_served: a broker that was frozen is not at once a broker to its controller
            if time.monotonic() > deadline:
                raise
        else:
            return


def _created(answer: Future[None]) -> None:
    """Raises TimeoutError where nothing is known yet."""
    try:
        answer.result(ANSWER_WITHIN_S + 1.0)
    except KafkaException as error:
        code = error.args[0].code()
        if code in {KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT}:
            raise TimeoutError from error
        if code != KafkaError.TOPIC_ALREADY_EXISTS:  # names are new: it was us, unheard
            raise


def until_served(bootstrap: str, partitions: Mapping[str, int]) -> None:
    """A topic is confirmed before its leaders know that they lead, which shows on a busy machine: only they answer for
    offsets."""
    wanted = [TopicPartition(name, number) for name, count in partitions.items() for number in range(count)]
    client, deadline = admin(bootstrap), time.monotonic() + WITHIN_S
    while True:
        answers = client.list_offsets(dict.fromkeys(wanted, LATEST), request_timeout=ANSWER_WITHIN_S)
        try:
            for answer in answers.values():
                answer.result(ANSWER_WITHIN_S + 1.0)
        except TimeoutError:  # librdkafka may never answer what it was asked while leaders were chosen
            if time.monotonic() > deadline:
                raise
            client = admin(bootstrap)
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S / 10)
        else:
            return


def create_topics(bootstrap: str, partitions: Mapping[str, int], *, copies: int = 1) -> None:
    """Topics of these names. Returns when the broker serves them."""
    _create(bootstrap, [NewTopic(name, count, copies) for name, count in partitions.items()])
    until_served(bootstrap, partitions)


def produce(bootstrap: str, topic: str, values: Iterable[bytes], **settings: str | int) -> list[KafkaError | None]:
    """With acks=all; what became of each, None for accepted."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "log_level": 0, **settings})
    outcomes: list[KafkaError | None] = []
    for value in values:
        headers: list[tuple[str, str | bytes | None]] = [("ce_id", value), ("empty", b""), ("none", None)]
        producer.produce(topic, value, key=value[:1], headers=headers, on_delivery=lambda e, _: outcomes.append(e))
    assert producer.flush(WITHIN_S) == 0
    return outcomes


def consume(bootstrap: str, topic: str, count: int, *, group_protocol: str) -> list[Message]:
    """The first `count` messages, as a member of a new group that commits what it got."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"test.{uuid.uuid4().hex}",
            "group.protocol": group_protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    messages: list[Message] = []
    try:
        consumer.subscribe([topic])
        for _ in range(int(WITHIN_S / POLL_S)):
            messages += consumer.consume(count - len(messages), POLL_S)
            if len(messages) == count:
                consumer.commit(asynchronous=False)
                return messages
    finally:
        consumer.close()
    raise AssertionError(f"{len(messages)} of {count} messages within {WITHIN_S:g} s")


async def open_up(publisher: Publisher) -> None:
    """Open it, and wait until a broker has answered: one that a busy machine lets answer late is away until it is asked
    again, and nothing is published meanwhile."""
    await publisher.open()
    async with asyncio.timeout(WITHIN_S):
        while not publisher.up:  # noqa: ASYNC110 - what it hears is heard in another thread
            await asyncio.sleep(POLL_S / 10)


@contextlib.contextmanager
def frozen(broker: Any) -> Iterator[None]:
    """The broker does nothing, and its connections stay. Waits until it has stopped: a signal takes a moment."""
    broker.send_signal(signal.SIGSTOP)
    try:
        deadline = time.monotonic() + WITHIN_S
        while not _state(broker.pid).startswith("T"):
            assert time.monotonic() < deadline
        yield
    finally:
        broker.send_signal(signal.SIGCONT)


def _state(pid: int) -> str:
    return subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
