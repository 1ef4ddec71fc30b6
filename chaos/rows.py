"""The rows of a store, read past the service and written so that they can be compared byte by byte: those that are
derived from the log, and all others, which a rebuild leaves alone."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg

TABLES: Mapping[str, str] = {
    "jobs": "tenant, id, status, model, version, lane, attempts, created_at, started_at, finished_at, metrics, error, "
    "metadata, durability, interim, due_at, expires_at, dies_at, retain_s, ended_at, deleted_at, batch, line, "
    "custom_id, retry_of, place, history",
    "results": "tenant, id, media_type, data, blob_name, blob_size_bytes, blob_sha256",
}
"""And the columns that both stores have, in the order of comparison. Positions differ by what was read last."""

MODEL, FINISHED_AT = 3, 9
"""In a row of jobs. No model yet: its events came before its request, and nobody sees it. None: it is not final."""

COUNTED = ("batches", "rejected_lines", "queue_counts", "outstanding", "waiting")
DERIVED = frozenset({*TABLES, *COUNTED, "partials", "reservations", "positions", "rebuilding"})
OWNED: Mapping[str, str] = {"keys": "a key", "endpoints": "https://receiver.example"}
"""Tables that an operator owns, and what stands in them here. Neither store has them yet: they are made here, and the
stores must treat them as they treat whatever they do not derive."""

Rows = Mapping[tuple[str, str, str], Sequence[str]]
"""By table, tenant and id: every column, as Python shows it. Of an owned table: how often there is such a row."""


async def postgres_rows(dsn: str) -> Rows:
    async with _connected(dsn) as connection:
        tables: list[tuple[str, Sequence[Sequence[Any]]]] = []
        for table, columns in TABLES.items():
            found = await connection.fetch(f"SELECT {columns} FROM forebay.{table}")
            tables.append((table, [tuple(row) for row in found]))
        return _rows(tables)


def sqlite_rows(path: Path) -> Rows:
    """Of a service that is not running, since it lets nobody else at its file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return _rows(
            (table, connection.execute(f"SELECT {columns} FROM {table}").fetchall())
            for table, columns in TABLES.items()
        )


async def postgres_finals(dsn: str) -> Rows:
    """Of visible, final jobs only: rows that nothing may ever change, whatever goes on."""
    return _finals(await postgres_rows(dsn))


def sqlite_finals(path: Path) -> Rows:
    return _finals(sqlite_rows(path))


async def own_in_postgres(dsn: str) -> None:
    """Make the tables of OWNED and fill them."""
    async with _connected(dsn) as connection:
        for table, content in OWNED.items():
            await connection.execute(f"CREATE TABLE forebay.{table} (tenant text, content text)")
            await connection.execute(f"INSERT INTO forebay.{table} VALUES ('default', $1)", content)


def own_in_sqlite(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table, content in OWNED.items():
            connection.execute(f"CREATE TABLE {table} (tenant TEXT, content TEXT)")
            connection.execute(f"INSERT INTO {table} VALUES ('default', ?)", (content,))


async def postgres_owned(dsn: str) -> Rows:
    """Whatever is not derived."""
    async with _connected(dsn) as connection:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'forebay'")
        tables = [str(row[0]) for row in names if row[0] not in DERIVED]
        found = {table: await connection.fetch(f"SELECT * FROM forebay.{table}") for table in tables}
        return _whole({table: [tuple(row) for row in rows] for table, rows in found.items()})


def sqlite_owned(path: Path) -> Rows:
    """Whatever is not derived, the log and what waits in it too."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        tables = [str(name) for (name,) in names if name not in DERIVED]
        return _whole({table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables})


def differing(one: Rows, other: Rows) -> int:
    """How many rows are not the same, or are in one of them only."""
    return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())


def missing(some: Rows, all_of: Rows) -> int:
    """How many of `some` are not, as they are, in `all_of`."""
    return sum(all_of.get(key) != row for key, row in some.items())


def _finals(rows: Rows) -> Rows:
    jobs = [(key[1:], row) for key, row in rows.items() if key[0] == "jobs"]
    final = {job for job, row in jobs if row[FINISHED_AT] != repr(None) and row[MODEL] != repr("")}
    return {key: row for key, row in rows.items() if key[1:] in final}


def _rows(tables: Iterable[tuple[str, Sequence[Sequence[Any]]]]) -> Rows:
    return {(table, row[0], row[1]): tuple(map(repr, row)) for table, rows in tables for row in rows}


def _whole(tables: Mapping[str, Sequence[Sequence[Any]]]) -> Rows:
    """Such tables have no key in common: a row is its own."""
    counted = Counter((table, repr(tuple(row))) for table, rows in tables.items() for row in rows)
    return {(table, row, ""): [str(count)] for (table, row), count in counted.items()}


@contextlib.asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()
