"""What a rebuild may not change is seen when it changes."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from chaos.rows import TABLES, differing, missing, own_in_sqlite, sqlite_finals, sqlite_owned, sqlite_rows

JOBS_THERE = (("a", "succeeded", "m", 2.0), ("b", "running", "m", None), ("c", "succeeded", "", 2.0))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table, columns in TABLES.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
        connection.execute("CREATE TABLE positions (source, position)")
        connection.execute("CREATE TABLE log (number, data)")
        connection.execute("INSERT INTO log VALUES (1, 'a fact')")
        for job_id, status, model, finished_at in JOBS_THERE:
            connection.execute(
                "INSERT INTO jobs (tenant, id, status, model, attempts, finished_at) VALUES ('t', ?, ?, ?, 1, ?)",
                (job_id, status, model, finished_at),
            )
            connection.execute("INSERT INTO results VALUES ('t', ?, 'text/plain', x'00', NULL, NULL, NULL)", (job_id,))
    own_in_sqlite(path)
    return path


def change(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_rows_of_final_jobs_must_stay_and_others_may_change(store: Path) -> None:
    finals = sqlite_finals(store)
    assert {key[:1] + key[2:] for key in finals} == {("jobs", "a"), ("results", "a")}
    change(store, "UPDATE jobs SET attempts = 2 WHERE id = 'b'")
    change(store, "UPDATE jobs SET finished_at = 3.0 WHERE id = 'b'")
    change(store, "UPDATE jobs SET model = 'm', created_at = 2.0 WHERE id = 'c'")  # its request has come
    assert missing(finals, sqlite_finals(store)) == 0
    change(store, "UPDATE results SET data = x'01' WHERE id = 'a'")
    change(store, "DELETE FROM jobs WHERE id = 'a'")
    assert missing(finals, sqlite_finals(store)) == 2


@pytest.mark.parametrize("statement", ["DELETE FROM keys", "UPDATE endpoints SET content = ''", "DELETE FROM log"])
def test_whatever_is_not_derived_must_stay(store: Path, statement: str) -> None:
    owned, rows = sqlite_owned(store), sqlite_rows(store)
    change(store, "DELETE FROM positions")
    assert differing(owned, sqlite_owned(store)) == 0
    change(store, statement)
    assert differing(owned, sqlite_owned(store)) > 0
    assert differing(rows, sqlite_rows(store)) == 0
