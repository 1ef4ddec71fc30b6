"""What stands in the topics, read with a plain consumer and by the documented form of the records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from chaos.facts import Facts, Gathered

POLL_S = 1.0
ANSWER_WITHIN_S = 30.0


def read_facts(bootstrap: str, prefix: str) -> Facts:
    """Everything that stands now in the topics of requests, events and dead letters. Raises KafkaException."""
    gathered = Gathered()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{prefix}.chaos",  # wanted by the client, and never joined or committed to
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": True,
            "log_level": 0,  # it complains when the broker is gone, which is none of its business
        }
    )
    try:
        for record in _all_of(consumer, lambda topic: topic.startswith((f"{prefix}.requests.", f"{prefix}.events"))):
            gathered.record(_job_id(record), _headers(record), record.value() or b"")
        for record in _all_of(consumer, lambda topic: topic == f"{prefix}.dlq"):
            gathered.dead_letter(_job_id(record))
    finally:
        consumer.close()
    return gathered.facts()


def _all_of(consumer: Consumer, wanted: Callable[[str], bool]) -> Iterator[Message]:
    """Every record of these topics up to their ends, each partition in order."""
    topics = consumer.list_topics(timeout=ANSWER_WITHIN_S).topics
    parts = [
        TopicPartition(topic, number, OFFSET_BEGINNING)
        for topic, metadata in topics.items()
        if wanted(topic)
        for number in metadata.partitions
    ]
    consumer.assign(parts)
    left = {(part.topic, part.partition) for part in parts}
    silent_since = time.monotonic()
    while left:
        record = consumer.poll(POLL_S)
        if record is None:
            if time.monotonic() - silent_since > ANSWER_WITHIN_S:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no record of {len(left)} partitions"))
            continue
        silent_since = time.monotonic()
        error = record.error()
        if error is None:
            yield record
        elif error.code() == KafkaError._PARTITION_EOF:
            left.discard((str(record.topic()), int(record.partition() or 0)))
        elif not error.retriable():
            raise KafkaException(error)
    consumer.unassign()


def _job_id(record: Message) -> str:
    key = record.key()
    return (key.decode() if isinstance(key, bytes) else str(key)).rpartition("/")[2]


def _headers(record: Message) -> dict[str, str]:
    return {header[0]: str(header[1], "utf-8") for header in record.headers() or () if isinstance(header[1], bytes)}
