"""Facts in, rows out: batches of the event log applied in one transaction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from msgspec.structs import replace

from forebay.adapters.postgres.database import WRITE_S, Database
from forebay.adapters.postgres.deliveries import project_deliveries, take_held
from forebay.adapters.postgres.failures import is_busy
from forebay.adapters.postgres.job_batches import project_batches
from forebay.adapters.postgres.reservations import project_reservations
from forebay.adapters.postgres.rows import (
    JOB_COLUMNS,
    JOB_TYPES,
    RESULT_COLUMNS,
    Row,
    from_job_row,
    from_payload_columns,
    to_job_row,
    to_partial_row,
    to_result_row,
)
from forebay.adapters.postgres.schema import SCHEMA
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.adapters.postgres.wakeups import CHANNEL, payload_of
from forebay.core import crash
from forebay.core.delivery import DeliveryEvent
from forebay.core.errors import Unavailable
from forebay.core.fact import OF_JOBS
from forebay.core.job import Job, apply
from forebay.core.outbox import OutboxRows
from forebay.core.partials import Key, PartialRows
from forebay.core.payload import Payload
from forebay.core.queues import moved, outstanding, waits
from forebay.ports.event_log import START, LogBatch

if TYPE_CHECKING:
    from forebay.adapters.postgres.database import Connection

TRIES = 5
PAUSE_S = 0.05
"""At most so long between tries, at random: two projectors that met do not meet again."""

log = structlog.get_logger(__name__)

_OF_ATTEMPT = (
    "status",
    "version",
    "attempts",
    "started_at",
    "finished_at",
    "metrics",
    "error",
    "interim",
    "due_at",
    "place",
    "history",
    "ended_at",
    "over_at",
    "expires_at",
    "dies_at",
)
_OF_REQUEST = (
    "model",
    "lane",
    "created_at",
    "metadata",
    "durability",
    "batch",
    "line",
    "custom_id",
    "retry_of",
    "retain_s",
    "webhooks",
)

_INSERT_STARTS = """
INSERT INTO forebay.positions SELECT source, '' FROM unnest($1::text[]) AS new (source) ORDER BY source
ON CONFLICT DO NOTHING
"""

# Locked in one order, so that two projectors that share sources wait for each other and never in a circle.
_ADVANCE = """
WITH held AS MATERIALIZED (
    SELECT source FROM forebay.positions WHERE source = ANY ($1::text[]) ORDER BY source FOR UPDATE
)
UPDATE forebay.positions SET position = moved.until
FROM held JOIN unnest($1::text[], $2::text[], $3::text[]) AS moved (source, since, until) USING (source)
WHERE positions.source = moved.source AND positions.position = moved.since
"""

# One job after the other, in the order of the arrays: a locking subquery is never turned into a join, for which the
# planner might take another order, or scan the table.
_LOCK = f"""
SELECT job.* FROM unnest($1::text[], $2::text[]) AS wanted (tenant, id) CROSS JOIN LATERAL (
    SELECT {", ".join(JOB_COLUMNS)} FROM forebay.jobs
    WHERE jobs.tenant = wanted.tenant AND jobs.id = wanted.id FOR UPDATE
) AS job
"""

_KEY = ("tenant", "id")
_STUB = {
    "status": "'queued'",
    "model": "''",
    "version": "''",
    "lane": "'normal'",
    "attempts": "0",
    "created_at": "0",
    "durability": "''",
}
"""The columns that must not be null and have no default."""

_INSERT_STUBS = f"""
INSERT INTO forebay.jobs (tenant, id, {", ".join(_STUB)})
SELECT tenant, id, {", ".join(_STUB.values())} FROM unnest($1::text[], $2::text[]) AS new (tenant, id)
ORDER BY tenant, id ON CONFLICT DO NOTHING
"""

_RESULTS = f"""
SELECT result.* FROM unnest($1::text[], $2::text[]) AS wanted (tenant, id) CROSS JOIN LATERAL (
    SELECT {", ".join(RESULT_COLUMNS)} FROM forebay.results
    WHERE results.tenant = wanted.tenant AND results.id = wanted.id OFFSET 0
) AS result
"""

_DROP_PARTIALS = """
DELETE FROM forebay.partials USING unnest($1::text[], $2::text[]) AS gone (tenant, id)
WHERE partials.tenant = gone.tenant AND partials.id = gone.id
"""

_INSERT_PARTIALS = """
INSERT INTO forebay.partials (tenant, id, attempt, last, first, chunks)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::integer[], $6::bytea[])
ON CONFLICT (tenant, id, attempt, last) DO UPDATE SET first = excluded.first, chunks = excluded.chunks
"""

# All that is counted, in one: a projector that keeps up has few facts at a time, and pays by the statement. Of
# `waiting`, a projector of a version that knows nothing of that table may have let a row lie.
_COUNT = """
WITH lanes AS (
    INSERT INTO forebay.queue_counts SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[])
    ON CONFLICT (model, lane, source) DO UPDATE
    SET waiting = queue_counts.waiting + excluded.waiting, running = queue_counts.running + excluded.running
), tenants AS (
    INSERT INTO forebay.outstanding SELECT $1, * FROM unnest($6::text[], $7::bigint[])
    ON CONFLICT (tenant, source) DO UPDATE SET jobs = outstanding.jobs + excluded.jobs
), waiting AS (
    INSERT INTO forebay.waiting (model, lane, created_at, id, tenant)
    SELECT * FROM unnest($8::text[], $9::text[], $10::double precision[], $11::text[], $12::text[])
    ON CONFLICT DO NOTHING
)
DELETE FROM forebay.waiting
USING unnest($13::text[], $14::text[], $15::double precision[], $16::text[], $17::text[])
    AS gone (model, lane, created_at, id, tenant)
WHERE waiting.model = gone.model AND waiting.lane = gone.lane AND waiting.created_at = gone.created_at
AND waiting.id = gone.id AND waiting.tenant = gone.tenant
"""


@cache
def _update(columns: tuple[str, ...]) -> str:
    """Of rows that are there and locked; the arrays are their keys and these columns. As an insertion that finds each
    of them by its key: the plan of an UPDATE from arrays may scan the table for each. What must not be null and is not
    updated stands there as in a stub."""
    given = (*_KEY, *columns)
    arrays = ", ".join(f"${number}::{JOB_TYPES[name]}[]" for number, name in enumerate(given, start=1))
    others = {name: value for name, value in _STUB.items() if name not in given}
    assignments = ", ".join(f"{name} = excluded.{name}" for name in columns)
    return (
        f"INSERT INTO forebay.jobs ({', '.join((*given, *others))}) "
        f"SELECT {', '.join(('new.*', *others.values()))} FROM unnest({arrays}) AS new "
        f"ON CONFLICT (tenant, id) DO UPDATE SET {assignments}"
    )


_OF_DELETED = (*_OF_ATTEMPT, *_OF_REQUEST, "deleted_at")
_DELETE_RESULTS = """
WITH gone AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[]) AS gone (tenant, id)), held AS (
    DELETE FROM forebay.held_outputs USING gone WHERE held_outputs.tenant = gone.tenant AND job_id = gone.id
)
DELETE FROM forebay.results USING gone WHERE results.tenant = gone.tenant AND results.id = gone.id
"""
_DELETED = """
SELECT job.tenant, job.id FROM unnest($1::text[], $2::text[]) AS wanted (tenant, id) CROSS JOIN LATERAL (
    SELECT tenant, id, deleted_at FROM forebay.jobs
    WHERE jobs.tenant = wanted.tenant AND jobs.id = wanted.id OFFSET 0
) AS job WHERE job.deleted_at IS NOT NULL
"""


async def project(database: Database, batches: Sequence[LogBatch]) -> list[Job] | None:
    """As the port says. A transaction that met another's is tried again; raises Unavailable if it met one each time."""
    for number in range(TRIES):
        async with database.borrow() as connection:
            try:
                return await _transact(connection, batches, may_be_new=number == 0)
            except asyncpg.PostgresError as error:
                if not is_busy(error) and not isinstance(error, asyncpg.UniqueViolationError):
                    raise
                await connection.execute("ROLLBACK")
                log.info("store.projection_met_another", reason=str(error))
        await asyncio.sleep(random.uniform(0, PAUSE_S))
    raise Unavailable(f"{database.where}: {TRIES} transactions met those of other projectors", retry_after_s=0.5)


async def _transact(connection: Connection, batches: Sequence[LogBatch], *, may_be_new: bool) -> list[Job] | None:
    await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    if not await _advance(connection, batches):
        await connection.execute("ROLLBACK")
        return None
    changed = await _apply(connection, batches, may_be_new=may_be_new)
    crash.reach("postgres.before_commit")
    await connection.execute(_commit(changed))
    crash.reach("postgres.after_commit")
    return changed


async def _advance(connection: Connection, batches: Sequence[LogBatch]) -> bool:
    """Compare and set, first of all: whoever comes second waits here, finds another position and has done nothing."""
    starting = [to_text(batch.source) for batch in batches if batch.start == START]
    if starting:
        await connection.execute(_INSERT_STARTS, starting)
    moves = [(to_text(batch.source), to_text(batch.start), to_text(batch.end)) for batch in batches]
    done = await connection.execute(_ADVANCE, *_arrays(moves, 3))
    return done == f"UPDATE {len(batches)}"


async def _apply(connection: Connection, batches: Sequence[LogBatch], *, may_be_new: bool) -> list[Job]:
    facts = [fact for batch in batches for fact in batch.facts]
    if not facts:
        return []
    keys = sorted({(fact.tenant, fact.job_id) for fact in facts if isinstance(fact, OF_JOBS)})
    before = await _load(connection, keys, may_be_new=may_be_new)
    after: dict[Key, Job | None] = dict(before)
    partials, told = PartialRows(), OutboxRows()
    for fact in facts:
        if not isinstance(fact, OF_JOBS):
            if isinstance(fact, DeliveryEvent):
                told.hear(fact)
            continue
        key = (fact.tenant, fact.job_id)
        old = after[key]
        after[key] = new = apply(old, fact)
        partials.note(old, new, fact)
        told.note(old, new, fact)
    changed = [(before[key], job) for key, job in after.items() if job is not None and job is not before[key]]
    gone = await _deleted(connection, told.heard)
    outputs = await _outputs(connection, told.to_read(changed))
    await _save(connection, changed)
    await _save_partials(connection, partials)
    await project_batches(connection, facts, changed, told)
    await _count(connection, min(batch.source for batch in batches), changed)
    await project_reservations(connection, facts)
    told.release(await take_held(connection, told.late))
    told.end_jobs(outputs)
    await project_deliveries(connection, told, gone, may_be_new=may_be_new)
    return [_whole(job, outputs) for _, job in changed if job.model or job.deleted_at is not None]


async def _load(connection: Connection, keys: list[Key], *, may_be_new: bool) -> dict[Key, Job | None]:
    """The rows of these jobs, locked in their order; None where there is none, and its insertion may then meet
    another's. With not `may_be_new` there is a row for each: stubs are inserted first, which waits for others."""
    texts = _arrays([(to_text(tenant), to_text(job_id)) for tenant, job_id in keys], 2)
    if not may_be_new:
        await connection.execute(_INSERT_STUBS, *texts)
    jobs: dict[Key, Job | None] = dict.fromkeys(keys)
    for row in await connection.fetch(_LOCK, *texts, timeout=WRITE_S):
        job = from_job_row(row)
        jobs[job.tenant, job.id] = job
    return jobs


async def _save(connection: Connection, changed: list[tuple[Job | None, Job]]) -> None:
    """Results first: the schema takes none for a job that is final already."""
    results = [
        to_result_row(job, job.output)
        for old, job in changed
        if job.output is not None and job.status.final and not (old is not None and old.status.final)
    ]
    await _copy(connection, "results", RESULT_COLUMNS, results)
    await _copy(connection, "jobs", JOB_COLUMNS, [to_job_row(job) for old, job in changed if old is None])
    await _delete(connection, [job for old, job in changed if old is not None and job.deleted_at is not None])
    known = [(old, to_job_row(job)) for old, job in changed if old is not None and job.deleted_at is None]
    # What the request says is written once; leaving it out of later updates leaves the index alone.
    await _upsert(connection, _OF_ATTEMPT, [row for old, row in known if old.model])
    await _upsert(connection, _OF_ATTEMPT + _OF_REQUEST, [row for old, row in known if not old.model])


async def _save_partials(connection: Connection, partials: PartialRows) -> None:
    if partials.dropped:
        keys = [(to_text(tenant), to_text(job_id)) for tenant, job_id in partials.dropped]
        await connection.execute(_DROP_PARTIALS, *_arrays(keys, 2))
    rows = [to_partial_row(key, partial) for key, added in partials.added.items() for partial in added]
    if rows:
        await connection.execute(_INSERT_PARTIALS, *_arrays(rows, 6))


async def _count(connection: Connection, source: str, changed: list[tuple[Job | None, Job]]) -> None:
    """Under the name of a source whose position this transaction has locked: nobody else adds to those rows."""
    lanes = [(to_text(model), to_text(lane), *by) for (model, lane), by in moved(changed).items()]
    tenants = [(to_text(tenant), change) for tenant, change in outstanding(changed).items()]
    now = [_waiting_row(job) for old, job in changed if waits(job) and not waits(old)]
    no_more = [_waiting_row(old) for old, job in changed if old is not None and waits(old) and not waits(job)]
    if lanes or tenants or now or no_more:
        counts = (*_arrays(lanes, 4), *_arrays(tenants, 2), *_arrays(now, 5), *_arrays(no_more, 5))
        await connection.execute(_COUNT, to_text(source), *counts)


def _waiting_row(job: Job) -> Row:
    return to_text(job.model), to_text(job.lane), job.created_at, to_text(job.id), to_text(job.tenant)


async def _delete(connection: Connection, tombstones: Sequence[Job]) -> None:
    """In place of the jobs that were there, with what belonged to them."""
    if not tombstones:
        return
    await _upsert(connection, _OF_DELETED, [to_job_row(job) for job in tombstones])
    keys = _arrays([(to_text(job.tenant), to_text(job.id)) for job in tombstones], 2)
    await connection.execute(_DELETE_RESULTS, *keys)


async def _upsert(connection: Connection, columns: tuple[str, ...], rows: list[Row]) -> None:
    if rows:
        by_name = dict(zip(JOB_COLUMNS, _arrays(rows, len(JOB_COLUMNS)), strict=True))
        await connection.execute(_update(columns), *(by_name[name] for name in (*_KEY, *columns)))


async def _copy(connection: Connection, table: str, columns: Sequence[str], rows: list[Row]) -> None:
    if rows:
        await connection.copy_records_to_table(table, schema_name=SCHEMA, columns=columns, records=rows)


async def _deleted(connection: Connection, keys: Collection[Key]) -> list[Key]:
    """Those of them that are."""
    if not keys:
        return []
    texts = _arrays([(to_text(tenant), to_text(job_id)) for tenant, job_id in keys], 2)
    return [(from_text(row[0]), from_text(row[1])) for row in await connection.fetch(_DELETED, *texts)]


async def _outputs(connection: Connection, keys: Sequence[Key]) -> dict[Key, Payload]:
    if not keys:
        return {}
    texts = _arrays([(to_text(tenant), to_text(job_id)) for tenant, job_id in keys], 2)
    found: dict[Key, Payload] = {}
    for row in await connection.fetch(_RESULTS, *texts):
        output = from_payload_columns(row[2:])
        if output is not None:
            found[from_text(row[0]), from_text(row[1])] = output
    return found


def _whole(job: Job, outputs: Mapping[Key, Payload]) -> Job:
    """With its output, if that is not with it."""
    output = outputs.get((job.tenant, job.id))
    return job if output is None or job.deleted_at is not None else replace(job, output=output)


def _commit(changed: Sequence[Job]) -> str:
    """Only a final state must not be unseen again after a power cut of the database's host, so only such a batch waits
    for the disk. The notification is a transaction of its own behind it: committing one takes a lock on all of the
    server's databases, which would be held until the disk has answered (src/backend/commands/async.c)."""
    wait = "" if any(job.status.final for job in changed) else "SET LOCAL synchronous_commit = off; "
    tell = f"; {notify(payload_of(changed))}" if changed else ""
    return f"{wait}COMMIT{tell}"


def notify(payload: str) -> str:
    return f"NOTIFY {CHANNEL}, '{payload}'"


def _arrays(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(width)]
