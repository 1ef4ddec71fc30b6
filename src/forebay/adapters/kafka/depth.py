"""How much of a topic a group has not done, asked of the brokers: nobody need be there who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # handed on without a word

from forebay.adapters.kafka.tracker import Tracker
from forebay.core.errors import Unavailable

ANSWER_WITHIN_S = 5.0
EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library has no types there
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as above


async def depth(admin: AdminClient, topic: str, group: str) -> int:
    """Messages of `topic` that `group` has not done, as far as it has committed. Raises Unavailable."""
    try:
        partitions = await asyncio.to_thread(_partitions, admin, topic)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            committed = await _committed(admin, group, partitions)  # first, so that it is not beyond the ends
            starts, ends = await asyncio.gather(
                _offsets(admin, partitions, EARLIEST), _offsets(admin, partitions, LATEST)
            )
    except TimeoutError as exc:
        raise Unavailable(f"Kafka did not say how far {group} is") from exc
    except KafkaException as exc:
        raise Unavailable(f"Kafka cannot say how far {group} is with {topic}: {exc.args[0].str()}") from exc
    return sum(_waiting(committed.get(number), starts[number], ends[number]) for number in ends)


def _waiting(committed: TopicPartition | None, start: int, end: int) -> int:
    """Of one partition whose records are those from `start` to before `end`."""
    if committed is None or not start <= committed.offset <= end:
        return end - start  # never committed, or the log went on without the group: it is read from its start
    tracker = Tracker.load(committed.offset, committed.metadata)
    return max(0, end - tracker.watermark - tracker.done_beyond)


def _partitions(admin: AdminClient, topic: str) -> list[TopicPartition]:
    found = admin.list_topics(topic, timeout=ANSWER_WITHIN_S).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return [TopicPartition(topic, number) for number in found.partitions]


async def _committed(
    admin: AdminClient, group: str, partitions: Iterable[TopicPartition]
) -> Mapping[int, TopicPartition]:
    asked = [ConsumerGroupTopicPartitions(group, list(partitions))]
    future = admin.list_consumer_group_offsets(asked, request_timeout=ANSWER_WITHIN_S)[group]
    answer = await _answer(future)
    for partition in answer.topic_partitions:
        if partition.error is not None:
            raise KafkaException(partition.error)
    return {partition.partition: partition for partition in answer.topic_partitions}


async def _offsets(admin: AdminClient, partitions: Iterable[TopicPartition], spec: OffsetSpec) -> Mapping[int, int]:
    futures = admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=ANSWER_WITHIN_S)
    return {partition.partition: (await _answer(future)).offset for partition, future in futures.items()}


async def _answer(future: Future[Any]) -> Any:
    return await asyncio.wrap_future(future)
