"""Cancellations are heard everywhere."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path

import pytest
from tests.kafka.client import create_topics, open_up

from dev.kafka.broker import Broker
from forebay.adapters.kafka.cancellations import KafkaCancellations
from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.memory import MemoryCancellations
from forebay.adapters.sqlite import Database, SqliteCancellations
from forebay.ports.cancellations import Cancellations
from forebay.testing.cancellations_contract import JOB, CancellationsContract, CancellationsPlace, hears


class MemoryPlace(CancellationsPlace):
    survives_restart = False

    async def open(self) -> Cancellations:
        return MemoryCancellations()

    async def close(self, cancellations: Cancellations) -> None:
        return None


class SqlitePlace(CancellationsPlace):
    survives_restart = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[Cancellations, Database] = {}

    async def open(self) -> Cancellations:
        database = Database(self._folder).open()
        cancellations = SqliteCancellations(database)
        self._open[cancellations] = database
        return cancellations

    async def close(self, cancellations: Cancellations) -> None:
        await self._open.pop(cancellations).close()


class KafkaPlace(CancellationsPlace):
    survives_restart = True

    def __init__(self, bootstrap: str) -> None:
        self.link = KafkaLink(bootstrap=bootstrap, prefix=f"test-{uuid.uuid4().hex[:12]}")
        create_topics(bootstrap, {self.link.names.control_topic: 1})
        self._open: dict[Cancellations, contextlib.AsyncExitStack] = {}

    async def open(self, *, listening: bool = True) -> Cancellations:
        stack = contextlib.AsyncExitStack()
        publisher = Publisher(self.link)
        await open_up(publisher)
        stack.push_async_callback(publisher.close)
        ear = ControlEar(self.link)
        cancellations = KafkaCancellations(self.link, publisher, ear if listening else None)
        ear.open()
        stack.push_async_callback(ear.close)
        self._open[cancellations] = stack
        return cancellations

    async def close(self, cancellations: Cancellations) -> None:
        await self._open.pop(cancellations).aclose()


class TestMemoryCancellations(CancellationsContract):
    @pytest.fixture
    def place(self) -> CancellationsPlace:
        return MemoryPlace()


class TestSqliteCancellations(CancellationsContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> CancellationsPlace:
        return SqlitePlace(tmp_path)


class TestKafkaCancellations(CancellationsContract):
    @pytest.fixture
    def place(self, kafka: Broker) -> CancellationsPlace:
        return KafkaPlace(kafka.bootstrap)

    async def test_an_api_is_heard_by_workers_in_other_processes(self, kafka: Broker) -> None:
        place = KafkaPlace(kafka.bootstrap)
        api = await place.open(listening=False)
        workers = [await place.open() for _ in range(2)]
        await api.announce(*JOB)
        for worker in workers:
            await hears(worker, JOB)
        for one in (api, *workers):
            await place.close(one)
