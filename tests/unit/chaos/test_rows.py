"""What a rebuild may not change is seen when it changes."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import apsw
import pytest

from chaos.access import grant
from chaos.rows import OWNED, TABLES, UNCOMPARED, differing, filled, missing, sqlite_finals, sqlite_owned, sqlite_rows
from forebay.adapters.sqlite.schema import migrate

NOT_DERIVED = {"log", "pending", "canceled", "sqlite_sequence"}
UNTOLD = {"reservations": {"published", "holder", "leased_until"}, "deliveries": {"holder", "held_until"}}
"""Columns that are not compared: of a lease, and that all are published."""

JOBS_THERE = (("a", "succeeded", "m", 2.0), ("b", "running", "m", None), ("c", "succeeded", "", 2.0))
FILL = """
INSERT INTO partials VALUES ('t', 'a', 1, 0, 0, x'5b5d');
INSERT INTO batches VALUES ('t', 'done', 'm', 1, 2, NULL, 3, 4, 3, 1, 0, 0, 2, 1, 0, 0, NULL);
INSERT INTO batches VALUES ('t', 'running', 'm', 1, 2, NULL, 3, 4, 3, 1, 1, 0, 1, 1, 0, 0, NULL);
INSERT INTO rejected_lines VALUES ('t', 'done', 4, '', 'malformed_json', 'no JSON', '');
INSERT INTO reservations VALUES ('t', 'known', 'a', 'f', 1, 1, '', 0);
INSERT INTO reservations VALUES ('t', 'leased', 'z', 'f', 1, 0, 'somebody', 9);
INSERT INTO queue_counts VALUES ('m', 'normal', 1, 1), ('m', 'low', 0, 0);
INSERT INTO outstanding VALUES ('t', 2), ('none', 0);
INSERT INTO deliveries VALUES
    ('t', 'a', 'new', 'job.succeeded', 'e', '', 2, 'pending', 0, NULL, 0, 3, 3, '', 'e', 9, '', 0, x'7b7d'),
    ('t', 'a', 'tried', 'job.started', 'e', '', 2, 'pending', 1, x'5b5d', 1, 3, 5, '', 'e', 9, 'somebody', 6, x'7b7d'),
    ('t', 'a', 'asked', 'job.output', 'e', '', 2, 'pending', 1, x'5b5d', 0, 4, 4, '', 'e', 9, '', 0, x'7b7d');
INSERT INTO held_outputs VALUES ('t', 'c', 1, 0, 2, x'5b5d'), ('t', 'a', 1, 0, 2, x'5b5d');
INSERT INTO log (tenant, job_id, headers, value) VALUES ('t', 'a', x'7b7d', x'00');
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A file of the service's own schema, with something in every table."""
    path = tmp_path / "forebay.db"
    with contextlib.closing(apsw.Connection(str(path))) as new:
        migrate(new, path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for job_id, status, model, finished_at in (*JOBS_THERE, ("d", "queued", "m", None)):
            if finished_at:
                connection.execute(
                    "INSERT INTO results VALUES ('t', ?, 'text/plain', x'00', NULL, NULL, NULL)", (job_id,)
                )
            connection.execute(
                "INSERT INTO jobs (tenant, id, status, model, version, lane, attempts, created_at, durability, "
                "finished_at) VALUES ('t', ?, ?, ?, '1', 'normal', 1, 1, '', ?)",
                (job_id, status, model, finished_at),
            )
    change(path, FILL)
    return path


def change(path: Path, statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(statements)


def test_every_column_of_every_derived_table_is_compared(store: Path) -> None:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names - NOT_DERIVED - UNCOMPARED == TABLES.keys() - {"waiting"}  # which is an index here
        for name in TABLES.keys() & names:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            known = set(re.findall(r"\w+", f"{TABLES[name].key} {TABLES[name].values}"))
            assert columns - known == UNTOLD.get(name, set()), name
    assert filled(sqlite_rows(store)) == TABLES.keys()


def test_what_may_never_change_must_stay_and_the_rest_may_change(store: Path) -> None:
    finals = sqlite_finals(store)
    assert {key[:1] + key[2:] for key in finals} == {
        ("jobs", "a"),
        ("results", "a"),
        ("partials", "a", "1", "0"),
        ("batches", "done"),
        ("rejected_lines", "done", "4"),
        ("reservations", "known"),
    }
    change(store, "UPDATE jobs SET attempts = 2 WHERE id = 'b'")
    change(store, "UPDATE jobs SET status = 'succeeded', finished_at = 3.0 WHERE id = 'b'")
    change(store, "UPDATE jobs SET model = 'm', created_at = 2.0 WHERE id = 'c'")  # its request has come
    change(store, "UPDATE batches SET queued = 0, succeeded = 2 WHERE id = 'running'")
    assert missing(finals, sqlite_finals(store)) == 0
    change(store, "DELETE FROM results WHERE id = 'a'; DELETE FROM jobs WHERE id = 'a'")
    change(store, "UPDATE batches SET succeeded = 1, failed = 2 WHERE id = 'done'; DELETE FROM reservations")
    assert missing(finals, sqlite_finals(store)) == 5


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE jobs SET over_at = 5 WHERE id = 'd'",
        "UPDATE results SET data = x'01' WHERE id = 'c'",
        "UPDATE partials SET chunks = x'00'",
        "UPDATE batches SET last_at = 9",
        "UPDATE rejected_lines SET pointer = '/input'",
        "UPDATE reservations SET fingerprint = 'g' WHERE key = 'known'",
        "UPDATE reservations SET published = 1 WHERE key = 'leased'",
        "UPDATE queue_counts SET waiting = waiting + 1",
        "UPDATE outstanding SET jobs = jobs - 1 WHERE tenant = 't'",
        "UPDATE deliveries SET body = x'00' WHERE id = 'new'",
        "UPDATE deliveries SET next_at = 6 WHERE id = 'tried'",
        "UPDATE deliveries SET since = 5 WHERE id = 'asked'",
        "UPDATE held_outputs SET chunks = x'00' WHERE job_id = 'c'",
    ],
)
def test_a_difference_in_any_derived_table_is_seen(store: Path, statement: str) -> None:
    rows, owned = sqlite_rows(store), sqlite_owned(store)
    change(store, f"DROP TRIGGER result_is_final; {statement}; UPDATE reservations SET holder = 'another'")
    assert differing(rows, sqlite_rows(store)) > 0
    assert differing(owned, sqlite_owned(store)) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE deliveries SET holder = 'another', held_until = 9",
        "UPDATE deliveries SET next_at = 6, since = 6, gives_up_at = 12 WHERE id = 'new'",
        "UPDATE deliveries SET since = 6, gives_up_at = 12 WHERE id = 'tried'",
        "DELETE FROM held_outputs WHERE job_id = 'a'",
    ],
)
def test_what_depends_on_the_order_of_reading_is_not_compared(store: Path, statement: str) -> None:
    rows, owned = sqlite_rows(store), sqlite_owned(store)
    change(store, statement)
    assert (differing(rows, sqlite_rows(store)), differing(owned, sqlite_owned(store))) == (0, 0)


def test_whatever_is_not_derived_must_stay(store: Path) -> None:
    grant({"data_dir": str(store.parent)})
    owned, rows = sqlite_owned(store), sqlite_rows(store)
    assert filled(owned) >= OWNED
    change(store, "INSERT INTO positions VALUES ('0', '1')")
    assert differing(owned, sqlite_owned(store)) == 0
    change(store, "DELETE FROM log")
    change(store.with_name("keys.db"), "UPDATE api_keys SET name = 'another'; DELETE FROM quotas")
    changed = sqlite_owned(store)
    assert {key[0] for key in owned.keys() ^ changed.keys()} == {"log", *OWNED}
    assert differing(rows, sqlite_rows(store)) == 0
