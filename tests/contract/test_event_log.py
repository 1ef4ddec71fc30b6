"""Every event log keeps the same promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.adapters.memory import MemoryEventLog, MemoryLog, MemoryQueue
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue
from forebay.ports.event_log import EventLog
from forebay.ports.queue import Queue
from forebay.testing.event_log_contract import EventLogContract, EventLogPlace


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


class TestMemoryEventLog(EventLogContract):
    @pytest.fixture
    def place(self) -> EventLogPlace:
        return MemoryPlace()


class TestSqliteEventLog(EventLogContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> EventLogPlace:
        return SqlitePlace(tmp_path)
