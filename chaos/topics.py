"""What stands in the topics, read with a plain consumer and by the documented form of the records."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from chaos.facts import Facts, FinalEvent
from chaos.history import FINAL

POLL_S = 1.0
ANSWER_WITHIN_S = 30.0
EVENT_PREFIX, EVENT_SUFFIX = "io.forebay.job.", ".v1"


def read_facts(bootstrap: str, prefix: str) -> Facts:
    """Everything that stands now in the topics of requests, events and dead letters. Raises KafkaException."""
    requests: dict[str, str] = {}
    finals: dict[str, list[FinalEvent]] = {}
    dead: list[str] = []
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
        for record in _all_of(consumer, lambda topic: topic.startswith(f"{prefix}.requests.")):
            # A job that was sent back with a delay stands here again, the same.
            requests[_job_id(record)] = _digest(record)
        for record in _all_of(consumer, lambda topic: topic == f"{prefix}.events"):
            event = _final(record)
            if event is not None:
                finals.setdefault(_job_id(record), []).append(event)
        for record in _all_of(consumer, lambda topic: topic == f"{prefix}.dlq"):
            dead.append(_job_id(record))
    finally:
        consumer.close()
    return Facts(requests, finals, dead)


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


def _value(record: Message) -> bytes:
    return record.value() or b""


def _digest(record: Message) -> str:
    """Of the text that was submitted; "" for what no client of ours sent."""
    try:
        text = json.loads(_value(record))["text"]
    except (ValueError, KeyError, TypeError):
        return ""
    return hashlib.sha256(str(text).encode()).hexdigest()


def _final(record: Message) -> FinalEvent | None:
    headers = _headers(record)
    status = headers.get("ce_type", "").removeprefix(EVENT_PREFIX).removesuffix(EVENT_SUFFIX)
    if status not in FINAL:
        return None
    value = _value(record)
    error = json.loads(headers["forebay-error"]) if "forebay-error" in headers else {}
    return FinalEvent(
        status, int(headers["forebay-attempt"]), json.loads(value) if value else None, error.get("code", "")
    )
