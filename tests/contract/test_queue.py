"""Every queue keeps the same promises."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import ClassVar

import pytest
from tests.kafka.client import create_topics, open_up

from dev.kafka.broker import Broker
from dev.kafka.zookeeper.broker import OldBroker
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.adapters.memory import MemoryLog, MemoryQueue
from forebay.adapters.sqlite import Database, SqliteQueue
from forebay.core.message import Channel
from forebay.ports.queue import Durability, Queue
from forebay.testing.queue_contract import CHANNEL, QueueContract, QueuePlace


class MemoryPlace(QueuePlace):
    async def open(self) -> Queue:
        return MemoryQueue(MemoryLog())

    async def close(self, queue: Queue) -> None:
        return None


class SqlitePlace(QueuePlace):
    def __init__(self, folder: Path, durability: Durability) -> None:
        self._folder = folder
        self._durability = durability
        self._open: dict[Queue, Database] = {}

    async def open(self) -> Queue:
        database = Database(self._folder, durability=self._durability).open()
        queue = SqliteQueue(database)
        self._open[queue] = database
        return queue

    async def close(self, queue: Queue) -> None:
        await self._open.pop(queue).close()


class TestMemoryQueue(QueueContract):
    @pytest.fixture
    def place(self) -> QueuePlace:
        return MemoryPlace()


class TestSqliteQueue(QueueContract):
    @pytest.fixture(params=[Durability.FLUSHED, Durability.PROCESS])
    def place(self, tmp_path: Path, request: pytest.FixtureRequest) -> QueuePlace:
        return SqlitePlace(tmp_path, request.param)


class KafkaPlace(QueuePlace):
    """Topics of its own on a broker that others use too, and a scheduler beside the queue that forwards what is due."""

    tiers: ClassVar = {"short": 0.05, "middle": 0.3, "long": 60.0}

    def __init__(self, bootstrap: str, group_protocol: str) -> None:
        self._link = KafkaLink(bootstrap=bootstrap, prefix=f"test-{uuid.uuid4().hex[:12]}")
        self._group_protocol = group_protocol
        self._open: dict[Queue, tuple[Publisher, asyncio.Task[None]]] = {}
        names = self._link.names
        retry = [names.retry_prefix + tier for tier in self.tiers]
        create_topics(
            bootstrap,
            {names.requests_topic(CHANNEL): 4, names.requests_topic(Channel("sample", "high")): 1}
            | {names.requests_topic(Channel("other", "normal")): 1, names.dlq_topic: 1}
            | dict.fromkeys(retry, 1),
        )

    async def open(self) -> Queue:
        publisher = Publisher(self._link)
        await open_up(publisher)
        queue = KafkaQueue(
            self._link,
            publisher,
            durability=Durability.PROCESS,
            group_protocol=self._group_protocol,
            session_timeout_s=6.0,
            drain_s=1.0,
            tiers=self.tiers,
            publish_wait_s=10.0,
        )
        self._open[queue] = (publisher, asyncio.create_task(queue.forward_delayed()))
        return queue

    async def close(self, queue: Queue) -> None:
        assert isinstance(queue, KafkaQueue)
        publisher, forwarding = self._open.pop(queue)
        await queue.close()
        forwarding.cancel()
        await asyncio.wait([forwarding])
        await publisher.close()


class TestKafkaQueue(QueueContract):
    @pytest.fixture(params=["consumer", "classic"])
    def place(self, kafka: Broker, request: pytest.FixtureRequest) -> QueuePlace:
        return KafkaPlace(kafka.bootstrap, request.param)


class TestOldKafkaQueue(QueueContract):
    """The oldest broker that is supported."""

    @pytest.fixture
    def place(self, old_kafka: OldBroker) -> QueuePlace:
        return KafkaPlace(old_kafka.bootstrap, "classic")
