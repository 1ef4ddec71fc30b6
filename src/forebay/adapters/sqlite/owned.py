"""What is owned and not derived: a SQLite file of its own, which a service and commands open side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import apsw

from forebay.adapters.sqlite.failures import reraise
from forebay.core.errors import Misconfigured

BUSY_MS = 2000


class OwnedTable:
    """A connection to `<folder>/keys.db`, where the table of `schema` is made if it is missing. Its calls take
    microseconds, and a write one flush of the disk, on the calling thread."""

    def __init__(self, folder: Path, schema: str) -> None:
        self._path = folder / "keys.db"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as exc:
            raise Misconfigured(
                f"{self._path} cannot be used: {exc.strerror}; let this user read and write it, or name another folder "
                "with data_dir (FOREBAY_DATA_DIR, --data-dir)"
            ) from exc
        try:
            self._connection = apsw.Connection(str(self._path))
            self._connection.set_busy_timeout(BUSY_MS)
            self._connection.pragma("journal_mode", "wal")
            self._connection.pragma("synchronous", "FULL")
            self._connection.execute(schema)
        except apsw.Error as exc:
            reraise(exc, self._path)

    def run(self, sql: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
        """The rows. Raises what the failure means to us."""
        try:
            return self._connection.execute(sql, arguments).fetchall()
        except apsw.Error as exc:
            reraise(exc, self._path)

    def close(self) -> None:
        self._connection.close()
