"""What stands in the log of the embedded backend, read with Python's own sqlite3."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from chaos.facts import Facts, Gathered


def read_log_file(path: Path) -> Facts:
    """Of a service that is not running, since it lets nobody else at its file."""
    gathered = Gathered()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for job_id, headers, value in connection.execute("SELECT job_id, headers, value FROM log ORDER BY seq"):
            gathered.record(job_id, json.loads(headers), value)
    return gathered.facts()
