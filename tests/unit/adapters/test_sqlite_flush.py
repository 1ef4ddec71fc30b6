"""A disk that fails to flush, by a file system of our own under SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from forebay.adapters.sqlite import Database, SqliteQueue
from forebay.core.errors import OutcomeUnknown, Unavailable
from forebay.core.message import Channel
from forebay.testing.samples import job_id, message

CHANNEL = Channel("sample", "normal")


class Disk(apsw.VFS):
    """The usual file system, made the default; flushes of the write-ahead log are counted and fail on demand."""

    def __init__(self) -> None:
        self.flushes = 0
        self.failing = False
        super().__init__("forebay-test-disk", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> File:  # noqa: N802 - apsw's name
        return File(self, name, flags)


class File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        self.is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw's name
        if self.is_log:
            self.disk.flushes += 1
            if self.disk.failing:
                raise apsw.IOError("the disk did not flush")
        super().xSync(flags)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


async def test_publishing_waits_for_a_flush_and_the_rest_does_not(tmp_path: Path, disk: Disk) -> None:
    database = Database(tmp_path).open()
    queue = SqliteQueue(database)
    consumer = queue.consumer(CHANNEL)
    await queue.publish(CHANNEL, [message(0)])  # the first write to a log also flushes its header
    before = disk.flushes
    await queue.publish(CHANNEL, [message(1), message(2)])
    assert disk.flushes == before + 1
    received = await consumer.receive(3, 0.0)
    await consumer.begin(received)
    await consumer.ack(received)
    assert disk.flushes == before + 1
    await database.close()


async def test_after_a_failed_flush_nothing_is_claimed_and_nothing_written_until_a_restart(
    tmp_path: Path, disk: Disk
) -> None:
    """A second flush may succeed for pages that the first one lost."""
    database = Database(tmp_path).open()
    queue = SqliteQueue(database)
    await queue.publish(CHANNEL, [message(1)])
    disk.failing = True
    with pytest.raises(OutcomeUnknown, match="restart") as caught:
        await queue.publish(CHANNEL, [message(2)])
    assert caught.value.job_id == job_id(2)
    disk.failing = False
    with pytest.raises(Unavailable, match="restart"):
        await queue.publish(CHANNEL, [message(3)])
    await database.close()

    database = Database(tmp_path).open()
    queue = SqliteQueue(database)
    await queue.publish(CHANNEL, [message(4)])
    received = {one.message.job_id for one in await queue.consumer(CHANNEL).receive(9, 0.0)}
    assert {job_id(1), job_id(4)} <= received <= {job_id(1), job_id(2), job_id(4)}
    await database.close()
