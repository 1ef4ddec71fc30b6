"""The derived rows of a store, read past the service and written so that two stores can be compared byte by byte."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

TABLES: Mapping[str, str] = {
    "jobs": "tenant, id, status, model, version, lane, attempts, created_at, started_at, finished_at, metrics, error, "
    "metadata, durability",
    "results": "tenant, id, media_type, data, blob_name, blob_size_bytes, blob_sha256",
}
"""And the columns that both stores have, in the order of comparison. Positions differ by what was read last."""

Rows = Mapping[tuple[str, str, str], str]
"""By table, tenant and id: the row, every column as Python shows it."""


async def postgres_rows(dsn: str) -> Rows:
    connection = await asyncpg.connect(dsn)
    try:
        tables: list[tuple[str, Sequence[Sequence[Any]]]] = []
        for table, columns in TABLES.items():
            found = await connection.fetch(f"SELECT {columns} FROM forebay.{table}")
            tables.append((table, [tuple(row) for row in found]))
        return _rows(tables)
    finally:
        await connection.close()


def sqlite_rows(path: Path) -> Rows:
    """Of a service that is not running, since it lets nobody else at its file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return _rows(
            (table, connection.execute(f"SELECT {columns} FROM {table}").fetchall())
            for table, columns in TABLES.items()
        )


def differing(one: Rows, other: Rows) -> int:
    """How many rows are not the same, or are in one of them only."""
    return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())


def _rows(tables: Iterable[tuple[str, Sequence[Sequence[Any]]]]) -> Rows:
    return {(table, row[0], row[1]): repr(tuple(row)) for table, rows in tables for row in rows}
