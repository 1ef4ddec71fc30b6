"""Copying the write-ahead log into the database, beside the writer."""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
import structlog

log = structlog.get_logger(__name__)

PAGE_BYTES = 4096
START_PAGES = 1000
"""Pages not yet copied at which the thread begins: 4 MiB, SQLite's own default for automatic checkpoints."""
RESET_PAGES = 16_000
"""Pages at which the writer sees to it that the log starts over, 64 MiB; at twice as many it waits for that."""


class Checkpointer:
    """A passive checkpoint blocks nobody (sqlite.org/c3ref/wal_checkpoint_v2.html), so a thread with a connection of
    its own copies while the writer goes on. It can never reach the end of a log that grows meanwhile, and only then
    may the log start over; so when it is long, the writer itself copies the short rest between two transactions. Only
    where the disk takes more than the thread can copy does the writer copy a long rest: back-pressure, and a bound.
    """

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._one_at_a_time = threading.Lock()
        self._copied_pages = 0
        self._due = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="forebay-sqlite-checkpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the thread has ended."""
        self._stopping = True
        self._due.set()
        self._thread.join()

    def committed(self, connection: apsw.Connection, wal_pages: int) -> None:
        """Called by the writer after each transaction, on its thread, with its connection."""
        if wal_pages < self._copied_pages:
            self._copied_pages = 0  # the log has started over
        rest = wal_pages - self._copied_pages
        if rest >= START_PAGES:
            self._due.set()
        too_long = wal_pages >= 2 * RESET_PAGES
        if too_long or (wal_pages >= RESET_PAGES and rest < START_PAGES):
            self._copy(connection, wait=too_long)

    def _run(self) -> None:
        while not self._stopping:
            self._due.wait()
            self._due.clear()
            if not self._stopping:
                self._copy(self._connection, wait=True)

    def _copy(self, connection: apsw.Connection, *, wait: bool) -> None:
        if not self._one_at_a_time.acquire(blocking=wait):
            return
        try:
            _, self._copied_pages = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as exc:
            # Nothing is lost: the log keeps every page until a later checkpoint succeeds. If the disk is full or fails,
            # the next write says so to its caller.
            log.warning("sqlite.checkpoint_failed", path=str(self._path), reason=str(exc))
        finally:
            self._one_at_a_time.release()
