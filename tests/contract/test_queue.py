"""Every queue keeps the same promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.adapters.memory import MemoryLog, MemoryQueue
from forebay.adapters.sqlite import Database, SqliteQueue
from forebay.ports.queue import Durability, Queue
from forebay.testing.queue_contract import QueueContract, QueuePlace


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
