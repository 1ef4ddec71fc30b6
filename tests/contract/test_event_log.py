"""Every event log keeps the same promises."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from tests.kafka.client import create_topics, open_up

from dev.kafka.broker import Broker
from forebay.adapters.kafka.event_log import KafkaEventLog
from forebay.adapters.kafka.follower import FollowerPlan
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.names import EVENTS_PARTITIONS
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.adapters.memory import MemoryEventLog, MemoryLog, MemoryQueue
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue
from forebay.ports.event_log import EventLog
from forebay.ports.queue import Durability, Queue
from forebay.testing.event_log_contract import CHANNEL, EventLogContract, EventLogPlace


class MemoryPlace(EventLogPlace):
    survives_restart = False

    async def open(self) -> tuple[Queue, EventLog]:
        shared = MemoryLog()
        return MemoryQueue(shared), MemoryEventLog(shared)

    async def close(self, queue: Queue, log: EventLog) -> None:
        return None


class SqlitePlace(EventLogPlace):
    survives_restart = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[EventLog, Database] = {}

    async def open(self) -> tuple[Queue, EventLog]:
        database = Database(self._folder).open()
        log = SqliteEventLog(database)
        self._open[log] = database
        return SqliteQueue(database), log

    async def close(self, queue: Queue, log: EventLog) -> None:
        await self._open.pop(log).close()


class KafkaPlace(EventLogPlace):
    """Topics of its own on a broker that others use too."""

    survives_restart = True
    one_order = False

    def __init__(self, bootstrap: str, plan: FollowerPlan) -> None:
        self._link = KafkaLink(bootstrap=bootstrap, prefix=f"test-{uuid.uuid4().hex[:12]}")
        self._plan = plan
        self._open: dict[EventLog, Publisher] = {}
        names = self._link.names
        create_topics(
            bootstrap,
            {
                names.events_topic: EVENTS_PARTITIONS,
                names.requests_topic(CHANNEL): 2,
                names.dlq_topic: 1,
                names.control_topic: 1,
            },
        )

    async def open(self) -> tuple[Queue, EventLog]:
        publisher = Publisher(self._link)
        await open_up(publisher)
        log = KafkaEventLog(self._link, publisher, self._plan)
        await log.open()
        self._open[log] = publisher
        queue = KafkaQueue(
            self._link,
            publisher,
            durability=Durability.PROCESS,
            group_protocol=self._plan.group_protocol,
            session_timeout_s=6.0,
            publish_wait_s=10.0,
        )
        return queue, log

    async def close(self, queue: Queue, log: EventLog) -> None:
        assert isinstance(queue, KafkaQueue)
        assert isinstance(log, KafkaEventLog)
        await queue.close()
        await log.close()
        await self._open.pop(log).close()


class TestMemoryEventLog(EventLogContract):
    @pytest.fixture
    def place(self) -> EventLogPlace:
        return MemoryPlace()


class TestSqliteEventLog(EventLogContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> EventLogPlace:
        return SqlitePlace(tmp_path)


class TestKafkaEventLog(EventLogContract):
    @pytest.fixture(
        params=[
            FollowerPlan(),
            FollowerPlan(group_protocol="classic", session_timeout_s=6.0),
            FollowerPlan(whole=True),
        ],
        ids=["consumer", "classic", "whole"],
    )
    def place(self, kafka: Broker, request: pytest.FixtureRequest) -> EventLogPlace:
        return KafkaPlace(kafka.bootstrap, request.param)
