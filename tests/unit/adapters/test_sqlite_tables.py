"""What the tables refuse, whoever writes, and which reads go through an index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import apsw
import pytest

from forebay.adapters.sqlite import (
    Database,
    SqliteStore,
    deliveries,
    event_log,
    job_batches,
    outbox,
    queue,
    store,
    waiting,
)
from forebay.adapters.sqlite.rows import JOB_COLUMNS
from forebay.adapters.sqlite.statements import values
from forebay.core.event import EventKind
from forebay.core.message import Channel
from forebay.core.payload import JSON, Payload
from forebay.testing.samples import TENANT, event, failed, job_id, message, request, succeeded
from forebay.testing.store_contract import Feeder

OUTPUT = Payload(media_type=JSON, data=b"[1]")
FINISHED, RUNNING, STUB = job_id(1), job_id(2), job_id(3)


def run(connection: apsw.Connection, statements: Sequence[str]) -> list[None]:
    for statement in statements:
        connection.execute(statement)
    return [None] * len(statements)


@pytest.fixture
async def filled(database: Database) -> Database:
    """One job succeeded, one waits, one is a final stub."""
    feed = Feeder(SqliteStore(database))
    await feed(request(1), succeeded(1, OUTPUT), request(2), succeeded(3, OUTPUT))
    return database


ONE = f"tenant = '{TENANT}' AND id = '{FINISHED}'"
COPY = JOB_COLUMNS.replace("status", "'failed'")


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE jobs SET status = 'running', finished_at = NULL WHERE {ONE}",
        f"UPDATE jobs SET status = 'failed' WHERE {ONE}",
        f"UPDATE jobs SET finished_at = finished_at + 1 WHERE {ONE}",
        f"UPDATE jobs SET attempts = attempts + 1 WHERE {ONE}",
        f"UPDATE jobs SET started_at = 1 WHERE {ONE}",
        f"UPDATE jobs SET metrics = NULL WHERE {ONE}",
        f"UPDATE jobs SET error = x'7b7d' WHERE {ONE}",
        f"UPDATE jobs SET model = 'another' WHERE {ONE}",
        f"UPDATE jobs SET model = '' WHERE {ONE}",
        f"UPDATE jobs SET version = '9' WHERE {ONE}",
        f"UPDATE jobs SET lane = 'low' WHERE {ONE}",
        f"UPDATE jobs SET created_at = 0 WHERE {ONE}",
        f"UPDATE jobs SET metadata = x'7b7d' WHERE {ONE}",
        f"UPDATE jobs SET durability = 'flushed' WHERE {ONE}",
        f"UPDATE jobs SET id = 'another' WHERE {ONE}",
        f"UPDATE jobs SET tenant = 'another' WHERE {ONE}",
        f"INSERT OR REPLACE INTO jobs SELECT {COPY} FROM jobs WHERE {ONE}",
        f"INSERT INTO jobs SELECT {COPY} FROM jobs WHERE {ONE} ON CONFLICT DO UPDATE SET status = 'failed'",
        f"UPDATE jobs SET status = 'failed' WHERE id = '{STUB}'",
        f"UPDATE jobs SET version = '9' WHERE id = '{STUB}'",
        f"UPDATE results SET data = x'00' WHERE {ONE}",
        f"UPDATE results SET media_type = 'text/plain' WHERE {ONE}",
        f"INSERT OR REPLACE INTO results VALUES ('{TENANT}', '{FINISHED}', 'text/plain', x'00', NULL, NULL, NULL)",
        f"INSERT OR REPLACE INTO results VALUES ('{TENANT}', '{STUB}', 'text/plain', x'00', NULL, NULL, NULL)",
    ],
)
async def test_a_final_row_and_its_result_cannot_be_changed(filled: Database, statement: str) -> None:
    before = filled.read("SELECT * FROM jobs"), filled.read("SELECT * FROM results")
    with pytest.raises(apsw.ConstraintError, match="never changes"):
        await filled.write(run, statement, durable=True)
    assert (filled.read("SELECT * FROM jobs"), filled.read("SELECT * FROM results")) == before


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE jobs SET status = 'done' WHERE id = '{RUNNING}'",
        f"UPDATE jobs SET status = 'succeeded' WHERE id = '{RUNNING}'",
        f"UPDATE jobs SET finished_at = 1.0 WHERE id = '{RUNNING}'",
        f"UPDATE jobs SET interim = x'7b7d' WHERE id = '{FINISHED}'",
        f"UPDATE jobs SET attempts = -1 WHERE id = '{RUNNING}'",
        f"INSERT INTO results VALUES ('{TENANT}', '{RUNNING}', 'text/plain', NULL, NULL, NULL, NULL)",
        f"INSERT INTO results VALUES ('{TENANT}', '{RUNNING}', 'text/plain', x'00', 'name', 1, 'digest')",
        f"INSERT INTO results VALUES ('{TENANT}', '{RUNNING}', 'text/plain', NULL, 'name', NULL, 'digest')",
    ],
)
async def test_a_row_that_makes_no_sense_is_refused(filled: Database, statement: str) -> None:
    with pytest.raises(apsw.ConstraintError, match="CHECK"):
        await filled.write(run, statement, durable=True)


async def test_a_stub_takes_its_requests_columns_once(filled: Database) -> None:
    fill = f"UPDATE jobs SET model = 'm', lane = 'low', created_at = 5.0 WHERE id = '{STUB}'"
    await filled.write(run, fill, durable=True)
    with pytest.raises(apsw.ConstraintError, match="never changes"):
        await filled.write(run, fill.replace("'m'", "'n'"), durable=True)


async def test_a_job_that_is_not_final_may_still_move(filled: Database) -> None:
    feed = Feeder(SqliteStore(filled))
    feed.position = "p1"
    assert len(await feed(failed(2))) == 1


QUERIES = {
    "the next messages": (waiting._FRESH, 4, "pending USING PRIMARY KEY"),
    "the next delayed messages": (waiting._DELAYED, 6, "pending USING PRIMARY KEY"),
    "the next time a message is due": (waiting._NEXT_DUE, 4, "pending USING PRIMARY KEY"),
    "a batch of the log": (event_log._SELECT, 2, "log USING INTEGER PRIMARY KEY"),
    "chunks": (store._PARTIALS, 5, "partials USING INDEX"),
    "a job": (store._GET, 2, "jobs USING PRIMARY KEY"),
    "what is ahead of a job": (store._BEFORE, 4, "jobs USING COVERING INDEX jobs_waiting"),
    "the oldest job of a lane": (
        store._OLDEST.replace("counts.model", "?").replace("counts.lane", "?"),
        2,
        "jobs USING COVERING INDEX jobs_waiting",
    ),
    "who is due": (store._DUE, 5, "jobs USING INDEX jobs_over"),
    "what is not swept": (store._UNSWEPT, 4, "jobs USING INDEX jobs_unswept"),
    "tombstones": (store._TOMBSTONES, 5, "jobs USING INDEX jobs_deleted"),
    "the rows of jobs to be forgotten": (queue._OF_JOBS.format("(?, ?), (?, ?)"), 7, "log USING INDEX log_of_job"),
    "requests to be forgotten": (queue._REQUESTS, 2, "log USING INTEGER PRIMARY KEY"),
    "rows that wait no longer": (queue._NO_LONGER_PENDING, 3, "pending USING PRIMARY KEY"),
    "a batch": (job_batches._GET, 2, "batches USING PRIMARY KEY"),
    "the lines of a batch": (job_batches._LINES, 4, "jobs USING INDEX jobs_of_batch"),
    "what is not final of a batch": (job_batches._UNFINISHED, 4, "jobs USING INDEX jobs_of_batch"),
    "an acknowledgement": (f"DELETE FROM pending {queue._WHERE}", 4, "pending USING PRIMARY KEY"),
    "the newest jobs": (
        "SELECT id FROM jobs WHERE tenant = ? AND model <> '' ORDER BY created_at DESC, id DESC LIMIT 10",
        1,
        "jobs USING INDEX jobs_newest",
    ),
}


@pytest.mark.parametrize("name", QUERIES)
async def test_reads_on_the_event_loop_go_through_an_index_without_sorting(database: Database, name: str) -> None:
    sql, arguments, index = QUERIES[name]
    plan = [row[3] for row in database.read(f"EXPLAIN QUERY PLAN {sql}", (None,) * arguments)]
    assert any(index in line for line in plan), plan
    assert not any("TEMP B-TREE" in line for line in plan), plan
    scans = [line for line in plan if line.startswith("SCAN ")]
    assert all(any(given in line for given in ("json_each", "VALUES", "(subquery")) for line in scans), plan


KEY = "USING INDEX sqlite_autoindex_deliveries_1 (tenant=? AND job_id=?"
OF_OUTBOX = {
    "what is due": (outbox._FIND_ANY, 4, ["deliveries_due (receiver>?)", "deliveries_due (receiver=? AND next_at<?)"]),
    "what is due for some": (outbox._FIND_NAMED, 5, ["deliveries_due (receiver=? AND next_at<?)"]),
    "what has waited too long": (outbox._FIND_LATE, 2, ["USING INDEX deliveries_late (gives_up_at<?)"]),
    "what is claimed": (outbox._HOLD, 3, ["USING INTEGER PRIMARY KEY"]),
    "what was claimed": (outbox._HELD, 1, ["USING INTEGER PRIMARY KEY"]),
    "what somebody holds": (deliveries._load_sql("holder = ? AND (tenant, job_id, id)", 3, 2), 7, [KEY]),
    "what becomes of them": (
        f"{deliveries._NEW} {values(11, 2)} {deliveries._SETTLE}",
        22,
        [f"deliveries USING COVERING {KEY[6:]}"],
    ),
    "what somebody gives back": (outbox._GIVE_BACK, 1, ["USING INDEX deliveries_held (holder=?)"]),
    "those of a job": (outbox._OF_JOB, 3, [KEY]),
    "one of them": (outbox._GET, 3, [KEY]),
    "how many wait": (outbox._COUNT, 0, ["INDEX deliveries_due (receiver>?)", "INDEX deliveries_due (receiver=?)"]),
    "tombstones of which nothing waits": (store._UNSWEPT, 4, [KEY]),
    "those that facts change": (deliveries._load_sql("(tenant, job_id, id)", 3, 2), 6, [KEY]),
    "those that go with their jobs": (deliveries._load_sql("(tenant, job_id)", 2, 2), 4, [KEY]),
}


@pytest.mark.parametrize("name", OF_OUTBOX)
async def test_what_waits_to_be_sent_is_found_through_an_index(database: Database, name: str) -> None:
    sql, arguments, indexes = OF_OUTBOX[name]
    plan = [row[3] for row in database.read(f"EXPLAIN QUERY PLAN {sql}", (None,) * arguments)]
    assert all(any(index in line for line in plan) for index in indexes), plan
    whole = [
        line for line in plan if line.startswith("SCAN deliveries") and "deliveries_late" not in line
    ]  # to a limit
    assert whole == [], plan


async def test_a_message_that_waits_takes_no_memory(database: Database) -> None:
    """What the queue keeps is what is in hand."""
    channel = Channel("sample", "normal")
    messages = queue.SqliteQueue(database)
    consumer = messages.consumer(channel)
    await messages.publish(channel, [message(n) for n in range(2000)])
    received = await consumer.receive(10, 0.0)
    state = messages._channels[channel]
    assert len(state._in_hand) == 10
    await consumer.ack(received)
    assert len(state._in_hand) == 0
    assert await messages.depth(channel) == 1990


async def test_who_is_due_is_not_read_on_the_event_loop(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[object]:
        raise AssertionError("it is read here")

    monkeypatch.setattr(filled, "read", lambda sql, arguments=(): refuse() if "jobs" in sql else [])
    states = SqliteStore(filled)
    assert len(await states.due(1e12, 500)) == 2
    assert await states.unswept(500) == await states.tombstones(1e12, 500) == []


async def test_a_job_with_many_rows_is_forgotten_in_portions(database: Database) -> None:
    """So that others may write in between."""
    messages = queue.SqliteQueue(database)
    events = event_log.SqliteEventLog(database)
    for number in (1, 2):
        await messages.publish(Channel("sample", "normal"), [message(number)])
        await events.publish([event(number, EventKind.STARTED)] * 699)
        await events.publish([event(number, EventKind.DELETED, attempt=0)] * 501)
    left = [database.read("SELECT count(*) FROM log")[0][0]]
    write = database.write

    def counting(*arguments: Any, **options: Any) -> asyncio.Future[Any]:
        left.append(database.read("SELECT count(*) FROM log")[0][0])
        return write(*arguments, **options)

    database.write = counting  # type: ignore[method-assign]
    await messages.forget([(TENANT, job_id(1)), (TENANT, job_id(2))])
    assert left == [2402, 2402, 1902, 1402]
    assert database.read("SELECT count(*) FROM log")[0][0] == 1002
    assert await messages.depth(Channel("sample", "normal")) == 0
    await messages.forget([(TENANT, job_id(1)), (TENANT, job_id(2))], wholly=True)
    assert database.read("SELECT count(*) FROM log")[0][0] == 0


@pytest.mark.parametrize("delay_s", [0.0, 60.0])
async def test_a_message_that_is_forgotten_and_then_given_back_waits_no_longer(
    database: Database, delay_s: float
) -> None:
    channel = Channel("sample", "normal")
    messages = queue.SqliteQueue(database)
    consumer = messages.consumer(channel)
    await messages.publish(channel, [message(n) for n in range(2)])
    received = await consumer.receive(2, 0.0)
    await messages.forget([(TENANT, received[0].message.job_id)])
    await consumer.nack(received, delay_s)
    assert await messages.depth(channel) == 1
    await messages.forget([(TENANT, received[1].message.job_id)])
    assert await messages.depth(channel) == 0
    assert await consumer.receive(2, 0.0) == []
