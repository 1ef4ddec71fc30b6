"""The one owner of the SQLite file."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import apsw

from forebay.adapters.sqlite.bell import Bell
from forebay.adapters.sqlite.checkpoint import PAGE_BYTES, RESET_PAGES, Checkpointer
from forebay.adapters.sqlite.failures import reraise
from forebay.adapters.sqlite.folder_lock import FolderLock
from forebay.adapters.sqlite.schema import migrate
from forebay.adapters.sqlite.writer import A, Operation, R, Writer
from forebay.core.errors import Misconfigured
from forebay.core.log_clock import LogClock
from forebay.ports.queue import Durability

CACHE_KIB = 4096
"""Page cache of the writer, and of each reader a quarter of it: small, since memory shall not grow with a backlog."""

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed_s() -> float:
    """As time.monotonic, and counting the time that a machine sleeps where the system tells it (Linux)."""
    return time.clock_gettime(_BOOTTIME) if _BOOTTIME is not None else time.monotonic()


class Database:
    """`<folder>/forebay.db` in WAL mode: one process, one writer thread, readers that never wait for it.

    `durability` FLUSHED: what is durable survives a power cut (synchronous=FULL). PROCESS: it survives the death of the
    process (synchronous=NORMAL). `wall` and `elapsed` are what the log's clock is made of (`core.log_clock`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        durability: Durability = Durability.FLUSHED,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = elapsed_s,
    ) -> None:
        if durability not in (Durability.FLUSHED, Durability.PROCESS):
            raise Misconfigured(f"SQLite offers the durability flushed or process, not {durability.value}")
        self.durability = durability
        self.log_grew = Bell()
        self.path = folder / "forebay.db"
        self._lock = FolderLock(folder)
        self._connections: list[apsw.Connection] = []
        self._scanning = threading.Lock()
        self._wall = wall
        self._elapsed = elapsed

    def open(self) -> Database:
        """Raises FolderInUse, or Misconfigured for a file that this version cannot use. Returns itself."""
        self._lock.acquire()
        try:
            self._make_private()
            self._writing = self._connect(CACHE_KIB)
            self._writing.pragma("journal_mode", "wal")
            self._writing.pragma("journal_size_limit", RESET_PAGES * PAGE_BYTES)
            self._writing.wal_autocheckpoint(0)
            migrate(self._writing, self.path)
            checkpointing = self._connect(CACHE_KIB // 4)
            checkpointing.pragma("synchronous", "NORMAL")
            self._reading = self._connect(CACHE_KIB // 4, apsw.SQLITE_OPEN_READONLY)
            self._scans = self._connect(CACHE_KIB // 4, apsw.SQLITE_OPEN_READONLY)
            newest = self.read("SELECT logged_at FROM log ORDER BY seq DESC LIMIT 1")
        except BaseException as exc:
            self._release()
            reraise(exc, self.path)
        self.log_clock = LogClock(newest[0][0] if newest else 0.0, wall=self._wall, elapsed=self._elapsed)
        self._checkpointer = Checkpointer(checkpointing, self.path)
        self._writer = Writer(self._writing, self.path, self._checkpointer, flush=self.durability is Durability.FLUSHED)
        self._checkpointer.start()
        self._writer.start()
        return self

    def _make_private(self) -> None:
        """A new file is for its owner only; SQLite gives its write-ahead log the same permissions."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise Misconfigured(
                f"{self.path} cannot be used: {exc.strerror}; let this user read and write it, or name another folder "
                "with data_dir (FOREBAY_DATA_DIR, --data-dir)"
            ) from exc

    def write(
        self,
        operation: Operation[A, R],
        argument: A,
        *,
        durable: bool,
        committed: Callable[[R], None] | None = None,
    ) -> asyncio.Future[R]:
        """See Writer.submit. Raises, when awaited, Unavailable with the numbers when the disk is full or fails."""
        return self._writer.submit(operation, argument, durable=durable, committed=committed)

    def read(self, sql: str, arguments: tuple[apsw.SQLiteValue, ...] = ()) -> list[Any]:
        """The rows, read on the calling thread: for reads through an index, which take microseconds. In WAL mode a
        reader never waits for the writer. Used on the event loop's thread only."""
        try:
            return self._reading.execute(sql, arguments).fetchall()
        except apsw.Error as exc:
            reraise(exc, self.path)

    def rows(self, sql: str, arguments: tuple[apsw.SQLiteValue, ...]) -> Generator[Any, None, None]:
        """As `read`, one row at a time. Take all rows or close the iterator before the next await: while it is open
        the write-ahead log cannot start over."""
        cursor = self._reading.cursor()
        try:
            yield from cursor.execute(sql, arguments)
        except apsw.Error as exc:
            reraise(exc, self.path)
        finally:
            cursor.close()

    async def scan(self, sql: str, arguments: tuple[apsw.SQLiteValue, ...]) -> list[Any]:
        """The rows, read on another thread: for reads that may pass over many rows."""
        return await asyncio.to_thread(self._scan, sql, arguments)

    def _scan(self, sql: str, arguments: tuple[apsw.SQLiteValue, ...]) -> list[Any]:
        with self._scanning:
            try:
                return self._scans.execute(sql, arguments).fetchall()
            except apsw.Error as exc:
                reraise(exc, self.path)

    async def close(self) -> None:
        """Finish what is in hand, copy the write-ahead log into the file, let go of the folder."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.stop()
        self._checkpointer.stop()
        self._release()

    def _release(self) -> None:
        try:
            # The last connection to close checkpoints and removes the log; a read-only one could not.
            for connection in reversed(self._connections):
                connection.close()
        finally:
            self._connections.clear()
            self._lock.release()

    def _connect(
        self, cache_kib: int, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    ) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=flags, statementcachesize=256)
        self._connections.append(connection)
        connection.set_busy_timeout(5000)
        # Else binding a value that the planner might look at prepares the statement anew: measured 22 us a read, not 7.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.pragma("cache_size", -cache_kib)
        connection.pragma("mmap_size", 0)  # an I/O error under mmap is a SIGBUS
        connection.pragma("temp_store", "memory")
        return connection
