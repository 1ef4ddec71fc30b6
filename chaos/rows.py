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
from msgspec import Struct

OWNED = frozenset({"api_keys", "quotas"})
"""What an operator has put in; a store keeps more that is not derived (a log, migrations), and all of it must stay."""


class Table(Struct, frozen=True, kw_only=True):
    """A derived table. `key` and `values` are the columns that both stores have, in the order of comparison; `of` are
    the rows that the log alone decides. `stays`: of which rows nothing may ever change, whatever goes on."""

    key: str
    values: str
    of: str = "true"
    stays: str = "false"
    grouped: str = ""

    def select(self, name: str, condition: str) -> str:
        return f"SELECT {self.key}, {self.values} FROM {name} WHERE {self.of} AND {condition} {self.grouped}"

    def row(self, name: str, row: Sequence[Any]) -> tuple[tuple[str, ...], Sequence[str]]:
        return (name, *map(str, row[: self.key.count(",") + 1])), tuple(map(repr, row))


_FINAL = "finished_at IS NOT NULL AND model <> ''"
"""Without a model its events came before its request, and nobody sees it."""

_OF_FINAL = f"(tenant, id) IN (SELECT tenant, id FROM jobs WHERE {_FINAL})"

TABLES: Mapping[str, Table] = {
    "jobs": Table(
        key="tenant, id",
        values="status, model, version, lane, attempts, created_at, started_at, finished_at, metrics, error, metadata, "
        "durability, interim, due_at, expires_at, dies_at, over_at, retain_s, ended_at, deleted_at, batch, line, "
        "custom_id, retry_of, place, history, webhooks",
        stays=_FINAL,
    ),
    "results": Table(
        key="tenant, id", values="media_type, data, blob_name, blob_size_bytes, blob_sha256", stays=_OF_FINAL
    ),
    "partials": Table(key="tenant, id, attempt, last", values="first, chunks", stays=_OF_FINAL),
    "batches": Table(
        key="tenant, id",
        values="model, created_at, sealed_at, canceled_at, last_at, lines, accepted, rejected, queued, running, "
        "succeeded, failed, canceled, expired, webhooks",
        stays="created_at > 0 AND sealed_at IS NOT NULL AND accepted = succeeded + failed + canceled + expired",
    ),
    "rejected_lines": Table(key="tenant, batch, line", values="custom_id, code, message, pointer", stays="true"),
    # When one is first due depends on which of the facts that make it is read last.
    "deliveries": Table(
        key="tenant, job_id, id",
        values="type, endpoint, url, receiver, created_at, status, tried, tries, in_turn, reason, body, "
        "CASE WHEN tried > 0 THEN next_at END, "
        "CASE WHEN in_turn <> tried THEN since END, CASE WHEN in_turn <> tried THEN gives_up_at END",
    ),
    # Of others it depends on what is read first whether there are any, until they are deleted.
    "held_outputs": Table(
        key="tenant, job_id, attempt, first",
        values="at, chunks",
        of="(tenant, job_id) IN (SELECT tenant, id FROM jobs WHERE model = '')",
    ),
    # The others are leases that processes hold, or held when they died, for what may not be in the log.
    "reservations": Table(
        key="tenant, key", values="job_id, fingerprint, accepted_at", of="published", stays="published"
    ),
    "waiting": Table(key="tenant, id", values="model, lane, created_at"),
    "queue_counts": Table(
        key="model, lane",
        values="CAST(sum(waiting) AS bigint), CAST(sum(running) AS bigint)",
        grouped="GROUP BY model, lane HAVING sum(waiting) <> 0 OR sum(running) <> 0",
    ),
    "outstanding": Table(
        key="tenant", values="CAST(sum(jobs) AS bigint)", grouped="GROUP BY tenant HAVING sum(jobs) <> 0"
    ),
}

UNCOMPARED = frozenset({"positions", "rebuilding"})
"""Derived too. Positions differ by what was read last, and a rebuild by whether it goes on."""

# SQLite keeps no such table, only an index of those jobs.
_WAITING_IN_SQLITE = "CREATE TEMP VIEW waiting AS SELECT * FROM jobs WHERE status = 'queued' AND model <> ''"

Rows = Mapping[tuple[str, ...], Sequence[str]]
"""By table and key: every column, as Python shows it. Of what is not derived: how often there is such a row."""


async def postgres_rows(dsn: str) -> Rows:
    return await _postgres(dsn, {name: table.select(name, "true") for name, table in TABLES.items()})


async def postgres_finals(dsn: str) -> Rows:
    """What nothing may ever change, whatever goes on: of visible, final jobs, finished batches, and keys that have
    their job."""
    return await _postgres(dsn, {name: table.select(name, table.stays) for name, table in TABLES.items()})


def sqlite_rows(path: Path) -> Rows:
    """Of a service that is not running, since it lets nobody else at its file."""
    return _sqlite(path, {name: table.select(name, "true") for name, table in TABLES.items()})


def sqlite_finals(path: Path) -> Rows:
    return _sqlite(path, {name: table.select(name, table.stays) for name, table in TABLES.items()})


async def postgres_owned(dsn: str) -> Rows:
    """Whatever is not derived."""
    async with _connected(dsn) as connection:
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'forebay'")
        tables = [str(row[0]) for row in names if _is_owned(row[0])]
        found = {table: await connection.fetch(f"SELECT * FROM {table}") for table in tables}
        return _whole({table: [tuple(row) for row in rows] for table, rows in found.items()})


def sqlite_owned(path: Path) -> Rows:
    """Whatever is not derived: the log and what waits in it, and all of the file beside it."""
    found: dict[str, Sequence[Sequence[Any]]] = {}
    for file in (path, path.with_name("keys.db")):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in [name for name in names if _is_owned(name) and not name.startswith("sqlite_")]:
                found[table] = connection.execute(f"SELECT * FROM {table}").fetchall()
    return _whole(found)


def filled(rows: Rows) -> frozenset[str]:
    """The tables of which there is any row."""
    return frozenset(key[0] for key in rows)


def differing(one: Rows, other: Rows) -> int:
    """How many rows are not the same, or are in one of them only."""
    return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())


def missing(some: Rows, all_of: Rows) -> int:
    """How many of `some` are not, as they are, in `all_of`."""
    return sum(all_of.get(key) != row for key, row in some.items())


def _is_owned(table: str) -> bool:
    return table not in TABLES and table not in UNCOMPARED


async def _postgres(dsn: str, selects: Mapping[str, str]) -> Rows:
    async with _connected(dsn) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        return _rows([(name, [tuple(row) for row in await connection.fetch(sql)]) for name, sql in selects.items()])


def _sqlite(path: Path, selects: Mapping[str, str]) -> Rows:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(_WAITING_IN_SQLITE)
        return _rows((name, connection.execute(sql).fetchall()) for name, sql in selects.items())


def _rows(tables: Iterable[tuple[str, Sequence[Sequence[Any]]]]) -> Rows:
    return dict(TABLES[name].row(name, row) for name, rows in tables for row in rows)


def _whole(tables: Mapping[str, Sequence[Sequence[Any]]]) -> Rows:
    """Such tables have no key in common: a row is its own."""
    counted = Counter((table, repr(tuple(row))) for table, rows in tables.items() for row in rows)
    return {(table, row): [str(count)] for (table, row), count in counted.items()}


@contextlib.asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "forebay"})
    try:
        yield connection
    finally:
        await connection.close()
