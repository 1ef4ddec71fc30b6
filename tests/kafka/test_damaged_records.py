"""A broker's disk that gives back other bytes than were written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from tests.kafka.queues import CHANNEL, KafkaPlace, number_of, receive_all, until

from dev.kafka.broker import Broker

pytestmark = pytest.mark.anyio

HEAD_BYTES = 12
"""Of a batch: its first offset and the length of all that follows (KIP-98)."""


@contextlib.contextmanager
def damaged(segment: Path, which: int) -> Iterator[None]:
    """The last byte of a batch is another one."""
    data, at = segment.read_bytes(), 0
    for _ in range(which + 1):
        at += HEAD_BYTES + int.from_bytes(data[at + 8 : at + HEAD_BYTES], "big")
    _write(segment, at - 1, data[at - 1] ^ 0xFF)
    try:
        yield
    finally:
        _write(segment, at - 1, data[at - 1])


def _write(segment: Path, at: int, byte: int) -> None:
    with segment.open("r+b") as file:
        file.seek(at)
        file.write(bytes([byte]))


async def test_a_damaged_record_is_read_again_and_stops_no_other_partition(kafka: Broker) -> None:
    place = KafkaPlace(kafka.bootstrap, partitions=2)
    async with place.queue() as queue:
        for numbers in (range(5), range(5, 10), range(10, 15)):
            await place.publish_to(0, numbers)
        await place.publish_to(1, range(100, 110))
        consumer = queue.consumer(CHANNEL)
        segment = kafka.folder / "data" / f"{place.topic}-0" / f"{0:020}.log"
        with structlog.testing.capture_logs() as logs, damaged(segment, 1):
            before = await receive_all(consumer, 15)
            assert sorted(map(number_of, before)) == [*range(5), *range(100, 110)]

            async def told_twice() -> bool:
                return len([line for line in logs if line["event"] == "kafka.consumer_error"]) >= 2

            await until(told_twice)
            await place.publish_to(1, range(110, 120))
            meanwhile = await receive_all(consumer, 10)
            assert sorted(map(number_of, meanwhile)) == list(range(110, 120))
            assert all(map(consumer.holds, before))
        after = await receive_all(consumer, 10)
        assert sorted(map(number_of, after)) == list(range(5, 15))
        assert all(map(consumer.holds, before))
        await consumer.ack(before + meanwhile + after)
        assert await queue.depth(CHANNEL) == 0
