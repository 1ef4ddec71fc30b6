"""Single records of the requests topics, read where they stand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import confluent_kafka
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.offsets import partition_of, source_of
from forebay.adapters.kafka.records import from_record, headers_of
from forebay.core.errors import InvalidRequest, Unavailable
from forebay.core.message import Message

log = structlog.get_logger(__name__)

WITHIN_S = 2.5
"""For one record, the first connection included. A caller of the API is to have an answer within 3 s."""

GONE = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,  # retention has passed it, or the log was cut
        KafkaError._PARTITION_EOF,
        KafkaError._UNKNOWN_PARTITION,
    }
)
READING: Mapping[str, Any] = {
    "auto.offset.reset": "error",  # never another record than the one that was asked for
    "check.crcs": True,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # One record is wanted and no more, as soon as may be: a larger one comes whole all the same (KIP-74).
    "fetch.message.max.bytes": 4096,
    "fetch.queue.backoff.ms": 1,  # from 1 s: how long it rests with more records queued than it was asked for
    "fetch.wait.max.ms": 10,
    "isolation.level": "read_committed",
    "queued.min.messages": 1,
}


def place_of(record: confluent_kafka.Message) -> str:
    """`forebay.requests.sentiment.normal:2@1730`"""
    return f"{source_of(record.topic() or '', record.partition() or 0)}@{record.offset()}"


class Lookup:
    """Opens a client for each call: those who look back are few, and what is not open cannot fail meanwhile."""

    def __init__(self, link: KafkaLink) -> None:
        self._link = link
        self._names = link.names

    def at(self, places: Sequence[str]) -> list[Message | None]:
        """As EventLog.at. Blocks."""
        client = Consumer(self._link.config(**{**READING, "group.id": self._names.lookup_group}))
        try:
            return [self._read(client, place) for place in places]
        except KafkaException as exc:
            raise Unavailable(f"Kafka does not give back what was accepted: {exc.args[0].str()}") from exc
        finally:
            client.close()

    def _read(self, client: Consumer, place: str) -> Message | None:
        source, _, offset = place.rpartition("@")
        topic, partition = partition_of(source)
        # Asked for, since a consumer takes a topic that is not there for a new one, and waits half a minute for it.
        if partition not in client.list_topics(topic, timeout=WITHIN_S).topics[topic].partitions:
            return None
        client.assign([TopicPartition(topic, partition, int(offset))])
        deadline = time.monotonic() + WITHIN_S
        while (left_s := deadline - time.monotonic()) > 0:
            record = client.poll(left_s)
            if record is None:
                break
            if (error := record.error()) is None:
                return self._message(record, place) if place_of(record) == place else None
            if error.code() in GONE:
                return None
            log.warning("event_log.lookup_failed", place=place, code=error.name(), reason=error.str())
        raise Unavailable(f"Kafka does not give back what was accepted within {WITHIN_S:g} s")

    def _message(self, record: confluent_kafka.Message, place: str) -> Message | None:
        try:
            return from_record(record, headers_of(record), self._names, self._link.clocks)
        except InvalidRequest as exc:
            log.warning("event_log.malformed", place=place, code=exc.code, reason=exc.message)
            return None
