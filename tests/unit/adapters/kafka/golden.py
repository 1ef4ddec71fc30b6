"""Golden files of Kafka records: lines `topic`, `key` (unless there is none) and one per header, an empty line, the
value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import confluent_kafka

from forebay.adapters.kafka.records import Record

GOLDEN = Path(__file__).parents[2] / "golden" / "kafka"
AT_MS = 1_764_000_000_250


def to_file(record: Record) -> bytes:
    key = [] if record.key is None else [b"key: " + record.key]
    lines = [b"topic: " + record.topic.encode(), *key]
    lines += [name.encode() + b": " + value for name, value in record.headers]
    return b"\n".join([*lines, b"", b""]) + (record.value or b"")


def from_file(data: bytes) -> Record:
    head, value = data.split(b"\n\n", 1)
    (_, topic), *lines = (line.split(b": ", 1) for line in head.split(b"\n"))
    key = lines.pop(0)[1] if lines and lines[0][0] == b"key" else None
    return Record(topic.decode(), key, value, [(name.decode(), text) for name, text in lines])


def read(name: str) -> Record:
    return from_file((GOLDEN / name).read_bytes())


def delivered(record: Record, **changes: Any) -> confluent_kafka.Message:
    """As a consumer would give it, from offset 42 of partition 3."""
    fields = {
        "topic": record.topic,
        "partition": 3,
        "offset": 42,
        "key": record.key,
        "value": record.value,
        "headers": list(record.headers),
        "timestamp": (confluent_kafka.TIMESTAMP_LOG_APPEND_TIME, AT_MS),
    }
    return confluent_kafka.Message(**{**fields, **changes})
