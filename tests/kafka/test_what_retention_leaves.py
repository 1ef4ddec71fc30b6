"""A broker deletes by whole segments, each topic for itself; what it leaves of a deleted job must not bring it back."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource  # admin does not export these
from msgspec.structs import replace
from tests.kafka.client import POLL_S, WITHIN_S, admin, create_topic

from dev.kafka.broker import Broker
from forebay.adapters.kafka.event_log import KafkaEventLog, events_partition
from forebay.adapters.kafka.follower import FollowerPlan
from forebay.adapters.kafka.layout import TopicWishes, desired
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.offsets import Offsets, source_of
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import to_record
from forebay.adapters.memory import MemoryStore
from forebay.core.event import JobEvent, JobRequest
from forebay.core.job import Job, apply, deletion
from forebay.core.message import Channel
from forebay.core.wire import encode_event, encode_request
from forebay.projector import rebuild
from forebay.telemetry.metrics import Metrics
from forebay.testing.samples import TENANT, failed, job_id, request

CHANNEL = Channel("sample", "normal")
WISHES = TopicWishes(requests_partitions=1)
LOOKS_OFTEN = {"log.retention.check.interval.ms": "100", "log.initial.task.delay.ms": "0"}

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Past:
    """A log whose records are as old as a test wishes. Its topics are as `desired`, but for their times, which are the
    writer's, and for what may go, which stays until `let_go`."""

    def __init__(self, link: KafkaLink) -> None:
        self.link = link
        names, wanted = link.names, desired(link.names, [CHANNEL.model], WISHES, brokers=1)
        self.requests, self.events = names.requests_topic(CHANNEL), names.events_topic
        self.topics = {one.name: one for one in wanted if one.name in (self.requests, self.events)}
        self._offsets = Offsets(link)
        self._producer = Producer({"bootstrap.servers": link.bootstrap, "log_level": 0})
        for name, topic in self.topics.items():
            settings = {**topic.config, "message.timestamp.type": "CreateTime", "retention.ms": "-1"}
            create_topic(link.bootstrap, name=name, partitions=topic.partitions, settings=settings)

    def write(self, facts: Sequence[JobRequest | JobEvent], partition: int) -> None:
        """In this order, each at its `logged_at`."""
        for fact in facts:
            if isinstance(fact, JobRequest):
                record = to_record(self.requests, encode_request(fact))
            else:
                record = to_record(self.events, encode_event(fact))
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                partition,
                headers=list(record.headers),
                timestamp=int(fact.logged_at * 1000),
            )
            assert self._producer.flush(WITHIN_S) == 0  # a batch of its own: only between batches is a segment ended

    def let_go(self, partition: int) -> None:
        """Returns once the first event of this partition is gone, and with it whatever may go there."""
        client, resources = admin(self.link.bootstrap), []
        for name, topic in self.topics.items():
            kept = ConfigEntry(
                "retention.ms", topic.config["retention.ms"], incremental_operation=AlterConfigOpType.SET
            )
            resources.append(ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[kept]))
        for altered in client.incremental_alter_configs(resources).values():
            altered.result(WITHIN_S)
        deadline = time.monotonic() + WITHIN_S
        while not self.first(self.events, partition):
            assert time.monotonic() < deadline
            time.sleep(POLL_S / 10)

    def first(self, topic: str, partition: int) -> int:
        """The offset of the oldest record that is left."""
        source = source_of(topic, partition)
        return self._offsets.bounds([source])[0][source]


@pytest.fixture
async def past(
    kafka: Broker, tmp_path: Path
) -> AsyncIterator[Past]:  # `kafka` says what is missing where there is none
    with Broker(tmp_path, settings=LOOKS_OFTEN) as broker:
        yield Past(KafkaLink(bootstrap=broker.bootstrap, prefix=f"t{uuid.uuid4().hex[:12]}"))


async def test_a_job_that_was_deleted_does_not_come_back_though_its_request_is_still_there(past: Past) -> None:
    segment_s = int(past.topics[past.requests].config["segment.ms"]) / 1000
    accepted_at = float(int(time.time() - WISHES.retention_s - segment_s / 2))
    partition = events_partition(TENANT, job_id(1))

    asked = replace(request(1), logged_at=accepted_at)
    end = replace(failed(1), logged_at=accepted_at + 10.0)
    gone = replace(deletion(apply(apply(None, asked), end), end.at + 10.0), logged_at=accepted_at + 20.0)
    neighbour = replace(request(2), logged_at=accepted_at + 0.9 * segment_s)  # for its sake the segment stays
    long_ago = replace(failed(3), logged_at=accepted_at - 9 * segment_s)
    past.write([asked, neighbour], partition=0)
    past.write([long_ago, end, gone], partition=partition)
    past.let_go(partition)

    store = await rebuilt(past.link)
    assert past.first(past.requests, 0) == 0  # it was read
    assert await store.get(TENANT, job_id(2)) is not None
    assert await store.get(TENANT, job_id(1)) == tombstone(asked, end, gone)


def tombstone(*facts: JobRequest | JobEvent) -> Job:
    """As a projector left it that was there all the time."""
    job = None
    for fact in facts:
        job = apply(job, fact)
    assert job is not None
    assert job.deleted_at is not None
    return job


async def rebuilt(link: KafkaLink) -> MemoryStore:
    async with AsyncExitStack() as stack:
        publisher = Publisher(link, warm_up_s=0.0)
        await publisher.open()
        stack.push_async_callback(publisher.close)
        log = KafkaEventLog(link, publisher, FollowerPlan(whole=True))
        await log.open()
        stack.push_async_callback(log.close)
        store = MemoryStore()
        await rebuild(log, store, Metrics())
        return store
