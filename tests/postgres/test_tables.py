"""What the tables refuse, whoever writes, and which statements find their rows without scanning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from forebay.adapters.postgres import PostgresStore, deliveries, outbox, projection, store
from forebay.adapters.postgres.rows import JOB_COLUMNS, JOB_TYPES
from forebay.core.payload import JSON, Payload
from forebay.testing.samples import TENANT, job_id, request, succeeded
from forebay.testing.store_contract import Feeder

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

OUTPUT = Payload(media_type=JSON, data=b"[1]")
FINISHED, RUNNING, STUB = job_id(1), job_id(2), job_id(3)
ONE = f"tenant = '{TENANT}' AND id = '{FINISHED}'"
COPY = ", ".join(JOB_COLUMNS).replace("status", "'failed'")


@pytest.fixture
async def filled(store: PostgresStore, sql: Connection) -> Connection:
    """One job succeeded, one waits, one is a final stub."""
    await Feeder(store)(request(1), succeeded(1, OUTPUT), request(2), succeeded(3, OUTPUT))
    return sql


async def rows(sql: Connection) -> list[list[asyncpg.Record]]:
    return [await sql.fetch(f"SELECT * FROM forebay.{table} ORDER BY tenant, id") for table in ("jobs", "results")]


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE forebay.jobs SET status = 'running', finished_at = NULL WHERE {ONE}",
        f"UPDATE forebay.jobs SET status = 'failed' WHERE {ONE}",
        f"UPDATE forebay.jobs SET finished_at = finished_at + 1 WHERE {ONE}",
        f"UPDATE forebay.jobs SET attempts = attempts + 1 WHERE {ONE}",
        f"UPDATE forebay.jobs SET started_at = 1 WHERE {ONE}",
        f"UPDATE forebay.jobs SET metrics = NULL WHERE {ONE}",
        f"UPDATE forebay.jobs SET error = '{{}}' WHERE {ONE}",
        f"UPDATE forebay.jobs SET model = 'another' WHERE {ONE}",
        f"UPDATE forebay.jobs SET model = '' WHERE {ONE}",
        f"UPDATE forebay.jobs SET version = '9' WHERE {ONE}",
        f"UPDATE forebay.jobs SET lane = 'low' WHERE {ONE}",
        f"UPDATE forebay.jobs SET created_at = 0 WHERE {ONE}",
        f"UPDATE forebay.jobs SET metadata = '{{}}' WHERE {ONE}",
        f"UPDATE forebay.jobs SET durability = 'flushed' WHERE {ONE}",
        f"UPDATE forebay.jobs SET id = 'another' WHERE {ONE}",
        f"UPDATE forebay.jobs SET tenant = 'another' WHERE {ONE}",
        f"INSERT INTO forebay.jobs SELECT {COPY} FROM forebay.jobs WHERE {ONE} "
        "ON CONFLICT (tenant, id) DO UPDATE SET status = 'failed'",
        f"UPDATE forebay.jobs SET status = 'failed' WHERE id = '{STUB}'",
        f"UPDATE forebay.jobs SET version = '9' WHERE id = '{STUB}'",
        f"UPDATE forebay.results SET data = '' WHERE {ONE}",
        f"UPDATE forebay.results SET media_type = 'text/plain' WHERE {ONE}",
        f"INSERT INTO forebay.results VALUES ('{TENANT}', '{FINISHED}', 'text/plain', '') "
        "ON CONFLICT (tenant, id) DO UPDATE SET data = ''",
        f"WITH gone AS (DELETE FROM forebay.results WHERE id = '{STUB}') "
        f"INSERT INTO forebay.results VALUES ('{TENANT}', '{STUB}', 'text/plain', '')",
    ],
)
async def test_a_final_row_and_its_result_cannot_be_changed(filled: Connection, statement: str) -> None:
    before = await rows(filled)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=r"never changes|duplicate key"):
        await filled.execute(statement)
    assert await rows(filled) == before


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE forebay.jobs SET status = 'done' WHERE id = '{RUNNING}'",
        f"UPDATE forebay.jobs SET status = 'succeeded' WHERE id = '{RUNNING}'",
        f"UPDATE forebay.jobs SET finished_at = 1.0 WHERE id = '{RUNNING}'",
        f"UPDATE forebay.jobs SET interim = '{{}}' WHERE id = '{FINISHED}'",
        f"UPDATE forebay.jobs SET attempts = -1 WHERE id = '{RUNNING}'",
        f"INSERT INTO forebay.results VALUES ('{TENANT}', '{RUNNING}', 'text/plain')",
        f"INSERT INTO forebay.results VALUES ('{TENANT}', '{RUNNING}', 'text/plain', '', 'name', 1, 'digest')",
        f"INSERT INTO forebay.results VALUES ('{TENANT}', '{RUNNING}', 'text/plain', NULL, 'name', NULL, 'digest')",
        "INSERT INTO forebay.rebuilding VALUES (false, '')",
    ],
)
async def test_a_row_that_makes_no_sense_is_refused(filled: Connection, statement: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await filled.execute(statement)


async def test_a_result_may_come_before_its_job_is_final(filled: Connection) -> None:
    await filled.execute(f"INSERT INTO forebay.results VALUES ('{TENANT}', '{RUNNING}', 'text/plain', '')")


async def test_a_stub_takes_its_requests_columns_once(filled: Connection) -> None:
    fill = f"UPDATE forebay.jobs SET model = 'm', lane = 'low', created_at = 5.0 WHERE id = '{STUB}'"
    await filled.execute(fill)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="never changes"):
        await filled.execute(fill.replace("'m'", "'n'"))


# ------------------------------------------------------------------------------------------------------------- plans

TABLES = ("jobs", "results", "partials", "waiting", "queue_counts", "outstanding")
KEYS = "'{a,b}'::text[], '{c,d}'::text[]"
WAITING = "'{m}'::text[], '{low}'::text[], '{1.0}'::float8[], '{b}'::text[], '{a}'::text[]"
STATEMENTS = {
    "a job": (store._GET, "'a', 'b'"),
    "the newest jobs": (
        store._LIST.format(ranged=" AND (created_at, id) < ($5, $6)", filters=" AND model = $4"),
        "'a', 10, 999, 'm', 1.0, 'b'",
    ),
    "locking jobs": (projection._LOCK, KEYS),
    "tombstones that are swept": (store._SWEPT, KEYS),
    "tombstones that are forgotten": (store._FORGET, KEYS),
    "whether jobs are deleted": (projection._DELETED, KEYS),
    "results of stubs": (projection._RESULTS, KEYS),
    "chunks": (store._PARTIALS, "'a', 'b', 1, 0, 9"),
    "dropping chunks": (projection._DROP_PARTIALS, KEYS),
    "the queues": (store._QUEUES, ""),
    "what a tenant uses": (store._USED, "'a', 1.0, 2.0, 9, 9, 9"),
    "what is ahead of a job": (store._AHEAD, "'m', 'low', 1.0, 'b', 9"),
    "what is counted": (
        projection._COUNT,
        f"'log', '{{m}}'::text[], '{{low}}'::text[], '{{1}}'::bigint[], '{{0}}'::bigint[], "
        f"'{{a}}'::text[], '{{1}}'::bigint[], {WAITING}, {WAITING}",
    ),
    "an update": (
        projection._update(projection._OF_ATTEMPT),
        ", ".join(f"'{{}}'::{JOB_TYPES[name]}[]" for name in (*projection._KEY, *projection._OF_ATTEMPT)),
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_plan_made_for_empty_tables_does_not_scan_them(store: PostgresStore, name: str) -> None:
    """A process keeps its plans, and the tables grow."""
    statement, arguments = STATEMENTS[name]
    async with store._database.borrow() as connection:
        await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE it AS {statement}")
        execute = f"EXECUTE it ({arguments})" if arguments else "EXECUTE it"
        plan = [row[0] for row in await connection.fetch(f"EXPLAIN {execute}")]
        await connection.execute("RESET plan_cache_mode; DEALLOCATE it")
    scans = [line.strip(" ->") for line in plan if "Scan" in line and any(table in line for table in TABLES)]
    assert not any(line.startswith("Seq Scan") for line in scans), plan
    if name != "an update":  # which looks each row up in the index of its key by itself
        assert any("_pkey" in line or "jobs_newest" in line for line in scans), plan
    if name != "what a tenant uses":  # else it would pass over all of a tenant's
        assert not any("jobs_deleted" in line for line in scans), plan
    # Only the few that were found are put in order.
    assert sum("Sort Key" in line for line in plan) == (name in ("the newest jobs", "the queues", "chunks")), plan


ROWS = f"{KEYS}, '{{e,f}}'::text[]"
OF_OUTBOX = {
    "what is due": (outbox._CLAIM_ANY, "1.0, 'h', 2.0, 9, 9, '{r}'", {"deliveries_due"}),
    "what is due for some": (outbox._CLAIM_ONLY, "1.0, 'h', 2.0, 9, 9, '{r}', '{s}'", {"deliveries_due"}),
    "what has waited too long": (outbox._CLAIM_LATE, "1.0, 'h', 2.0, 9", {"deliveries_late"}),
    "what somebody settles": (outbox._LOCK_HELD, f"'h', {ROWS}", {"deliveries_pkey"}),
    "what somebody gives back": (outbox._LOCK_ALL_HELD, "'h'", {"deliveries_held"}),
    "those of a job": (outbox._OF_JOB, "'a', 'b', 9", {"deliveries_pkey"}),
    "one of them": (outbox._GET, "'a', 'b', 'c'", {"deliveries_pkey"}),
    "those of a tenant": (
        outbox._LIST.format(filters=" AND status = $7"),
        "'a', 9, 99, 1.0, 1.0, 'b', 'parked'",
        {"deliveries_oldest"},
    ),
    "tombstones of which nothing waits": (store._UNSWEPT, "1.0, 'a', 'b', 9", {"deliveries_pkey"}),
    "those that go with their jobs": (store._FORGET, KEYS, {"deliveries_pkey"}),
    "those that facts change": (deliveries._LOCK, f"{ROWS}, {KEYS}", {"deliveries_pkey"}),
    "what was held of a job": (deliveries._TAKE_HELD, KEYS, {"held_outputs_pkey"}),
    "what was held of a deleted job": (projection._DELETE_RESULTS, KEYS, {"held_outputs_pkey"}),
}


@pytest.mark.parametrize("name", OF_OUTBOX)
async def test_what_waits_to_be_sent_is_found_through_one_index(store: PostgresStore, name: str) -> None:
    """By a plan that was made for empty tables, too."""
    statement, arguments, indexes = OF_OUTBOX[name]
    async with store._database.borrow() as connection:
        await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE it AS {statement}")
        plan = [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE it ({arguments})")]
        await connection.execute("RESET plan_cache_mode; DEALLOCATE it")
    scans = [line.strip(" ->") for line in plan if "Scan" in line and ("deliveries" in line or "held_outputs" in line)]
    # An update finds what it has locked by the key.
    used = {index for line in scans for index in [line.partition(" using ")[2].partition(" ")[0]]}
    assert used - {"deliveries_pkey"} == indexes - {"deliveries_pkey"}, plan
    assert used >= indexes, plan
