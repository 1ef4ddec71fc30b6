"""The owner of the file: one process, group commit, errors with numbers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from forebay.adapters.sqlite import Database
from forebay.adapters.sqlite.schema import MIGRATIONS
from forebay.core.errors import FolderInUse, Misconfigured, Unavailable
from forebay.ports.queue import Durability

Calls = Sequence[int]


def keep(connection: apsw.Connection, numbers: Calls) -> list[int]:
    """Writes each number as a position, then refuses negative ones."""
    for number in numbers:
        connection.execute("INSERT INTO positions VALUES (?, 'x')", (str(number),))
    if any(number < 0 for number in numbers):
        raise ValueError(f"{min(numbers)} is negative")
    return [number * 2 for number in numbers]


def kept(database: Database) -> list[int]:
    return sorted(int(row[0]) for row in database.read("SELECT source FROM positions"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------------- one process


async def test_a_second_opener_is_refused_with_the_holders_pid(database: Database, tmp_path: Path) -> None:
    with pytest.raises(FolderInUse, match=rf"process {os.getpid()};.*FOREBAY_DATA_DIR"):
        Database(tmp_path).open()


async def test_another_process_is_refused(database: Database, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from forebay.adapters.sqlite import Database; Database(pathlib.Path(sys.argv[1])).open()"
    )
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert other.returncode == 1
    assert f"in use by process {os.getpid()}" in other.stderr


async def test_a_closed_folder_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(3):
        await Database(tmp_path).open().close()
    assert names(tmp_path) == ["forebay.db", "lock"]


async def test_a_refused_opener_leaves_the_holder_alone(database: Database, tmp_path: Path) -> None:
    with pytest.raises(FolderInUse):
        Database(tmp_path).open()
    assert await database.write(keep, 1, durable=True) == 2


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Misconfigured, match="file/below"):
        Database(tmp_path / "file" / "below").open()


# ------------------------------------------------------------------------------------------------------------ schema


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    await Database(tmp_path).open().close()
    newer = len(MIGRATIONS) + 1
    with apsw.Connection(str(tmp_path / "forebay.db")) as connection:
        connection.pragma("user_version", newer)
    connection.close()
    with pytest.raises(Misconfigured, match=f"newer Forebay .schema {newer}"):
        Database(tmp_path).open()
    with pytest.raises(Misconfigured, match="newer"):  # and not FolderInUse: the lock was let go
        Database(tmp_path).open()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "forebay.db").write_bytes(b"not a database at all, but long enough to be read" * 100)
    with pytest.raises(Misconfigured, match="damaged"):
        Database(tmp_path).open()


def test_only_the_two_durabilities_of_sqlite_are_offered(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="flushed or process"):
        Database(tmp_path, durability=Durability.REPLICATED)


# ------------------------------------------------------------------------------------------------------ group commit


async def test_results_come_back_to_their_callers(database: Database) -> None:
    results = await asyncio.gather(*(database.write(keep, n, durable=n % 2 == 0) for n in range(300)))
    assert results == [2 * n for n in range(300)]
    assert kept(database) == list(range(300))


async def test_calls_that_wait_share_a_transaction(database: Database) -> None:
    """While the first is being written the others gather."""
    commits: list[int] = []

    def count(connection: apsw.Connection, calls: Calls) -> list[None]:
        commits.append(len(calls))
        return [None] * len(calls)

    await asyncio.gather(*(database.write(count, n, durable=True) for n in range(400)))
    assert sum(commits) == 400
    assert len(commits) < 100


async def test_only_the_guilty_call_of_a_group_fails(database: Database) -> None:
    numbers = [1, 2, -3, 4, -5, 6]
    results = await asyncio.gather(*(database.write(keep, n, durable=True) for n in numbers), return_exceptions=True)
    assert [result if isinstance(result, int) else type(result) for result in results] == [
        2,
        4,
        ValueError,
        8,
        ValueError,
        12,
    ]
    assert kept(database) == [1, 2, 4, 6]


async def test_a_failed_call_does_not_stop_later_ones(database: Database) -> None:
    with pytest.raises(ValueError, match="-1 is negative"):
        await database.write(keep, -1, durable=True)
    assert await database.write(keep, 1, durable=True) == 2
    assert kept(database) == [1]


async def test_a_caller_that_gives_up_takes_nothing_back(database: Database) -> None:
    told: list[int] = []
    abandoned = database.write(keep, 7, durable=True, committed=told.append)
    abandoned.cancel()
    await database.write(keep, 8, durable=True)
    assert kept(database) == [7, 8]
    assert told == [14]


async def test_callbacks_run_before_the_caller_goes_on(database: Database) -> None:
    told: list[int] = []
    await database.write(keep, 1, durable=False, committed=told.append)
    assert told == [2]


async def test_closing_finishes_what_is_in_hand(tmp_path: Path) -> None:
    database = Database(tmp_path).open()
    writes = [database.write(keep, n, durable=True) for n in range(500)]
    await database.close()
    assert await asyncio.gather(*writes) == [2 * n for n in range(500)]
    database = Database(tmp_path).open()
    assert kept(database) == list(range(500))
    await database.close()


async def test_writing_after_closing_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path).open()
    await database.close()
    with pytest.raises(Unavailable, match="closed"):
        await database.write(keep, 1, durable=True)


@pytest.mark.parametrize(
    ("durability", "durable", "expected"),
    [
        (Durability.FLUSHED, True, 2),
        (Durability.FLUSHED, False, 1),
        (Durability.PROCESS, True, 1),
        (Durability.PROCESS, False, 1),
    ],
)
async def test_only_durable_writes_of_the_flushed_class_are_flushed(
    tmp_path: Path, durability: Durability, durable: bool, expected: int
) -> None:
    """1 is NORMAL, 2 is FULL (sqlite.org/pragma.html#pragma_synchronous)."""

    def level(connection: apsw.Connection, calls: Calls) -> list[int]:
        return [int(connection.pragma("synchronous"))] * len(calls)

    database = Database(tmp_path, durability=durability).open()
    for before in (True, False):
        await database.write(keep, int(before), durable=before)
        assert await database.write(level, 0, durable=durable) == expected
    await database.close()


# ------------------------------------------------------------------------------------------------------------- disks


async def test_a_full_disk_is_unavailable_with_the_numbers_and_passes(database: Database) -> None:
    def limit(connection: apsw.Connection, calls: Calls) -> list[None]:
        for pages in calls:
            connection.pragma("max_page_count", pages)
        return [None] * len(calls)

    def fill(connection: apsw.Connection, calls: Calls) -> list[None]:
        for size in calls:
            connection.execute(
                "INSERT INTO log (tenant, job_id, headers, value) VALUES ('t', 'j', x'', ?)", (bytes(size),)
            )
        return [None] * len(calls)

    await database.write(limit, 30, durable=True)
    with pytest.raises(Unavailable, match=r"full.*\d+ bytes, the disk \d+ free of \d+"):
        await database.write(fill, 1_000_000, durable=True)
    await database.write(limit, 1_000_000, durable=True)
    await database.write(fill, 1_000_000, durable=True)
    assert database.read("SELECT count(*) FROM log") == [(1,)]


async def test_the_log_of_writes_starts_over_and_stays_bounded(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small thresholds; the real ones stand for about 64 MiB."""
    monkeypatch.setattr("forebay.adapters.sqlite.checkpoint.START_PAGES", 50)
    monkeypatch.setattr("forebay.adapters.sqlite.checkpoint.RESET_PAGES", 200)

    def add(connection: apsw.Connection, calls: Calls) -> list[None]:
        for size in calls:
            connection.execute(
                "INSERT INTO log (tenant, job_id, headers, value) VALUES ('t', 'j', x'', ?)", (bytes(size),)
            )
        return [None] * len(calls)

    largest = 0
    for _ in range(300):
        await database.write(add, 40_000, durable=False)
        largest = max(largest, (tmp_path / "forebay.db-wal").stat().st_size)
    assert largest < 300 * 40_000 / 2
    assert database.read("SELECT count(*), sum(length(value)) FROM log") == [(300, 300 * 40_000)]
