"""Batches: the tables `batches` and `rejected_lines`, and the jobs of a batch in the order of their lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import astuple, fields

from forebay.adapters.postgres.database import SCAN_S, Database
from forebay.adapters.postgres.rows import (
    JOB_COLUMNS,
    PAYLOAD_COLUMNS,
    from_job_row,
    from_payload_columns,
    from_targets,
    to_targets,
)
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.core.errors import Unavailable
from forebay.core.fact import Fact
from forebay.core.job import Job
from forebay.core.job_batch import BatchEvent, JobBatch, Key, RejectedLine, changes_of
from forebay.core.outbox import OutboxRows
from forebay.ports.job_batches import BatchPage, BatchPlace

if TYPE_CHECKING:
    from forebay.adapters.postgres.database import Connection

_NAMES = tuple(field.name for field in fields(JobBatch))
_COLUMNS = ", ".join(_NAMES)
_REJECTED = ("line", "code", "message", "pointer", "custom_id")
_JOBS = ", ".join(f"jobs.{name}" for name in JOB_COLUMNS)
_JOB_WIDTH = len(JOB_COLUMNS)

# Stubs first, in one order, then the locks in one order: so that two projectors wait for each other and never in a
# circle. Whoever projects has locked its jobs before.
_INSERT_STUBS = """
INSERT INTO forebay.batches
SELECT tenant, id, '', 0, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
FROM unnest($1::text[], $2::text[]) AS new (tenant, id) ORDER BY tenant, id ON CONFLICT DO NOTHING
"""
_LOCK = f"""
SELECT batch.* FROM unnest($1::text[], $2::text[]) AS wanted (tenant, id) CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM forebay.batches
    WHERE batches.tenant = wanted.tenant AND batches.id = wanted.id FOR UPDATE
) AS batch
"""
_UPDATE = f"""
UPDATE forebay.batches SET {", ".join(f"{name} = ${place}" for place, name in enumerate(_NAMES[2:], start=3))}
WHERE tenant = $1 AND id = $2
"""
_REJECT = f"""
INSERT INTO forebay.rejected_lines (tenant, batch, {", ".join(_REJECTED)})
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[])
ON CONFLICT DO NOTHING
"""

# One row always: whether a rebuild is under way must be known from the same moment.
_NOW = "SELECT rebuilding, found.* FROM (SELECT EXISTS (SELECT FROM forebay.rebuilding) AS rebuilding) AS now"
_GET = f"""
{_NOW} LEFT JOIN LATERAL (
    SELECT {_COLUMNS} FROM forebay.batches WHERE tenant = $1 AND id = $2 AND created_at > 0
) AS found ON true
"""
_LIST = f"""
{_NOW} LEFT JOIN LATERAL (
    SELECT {_COLUMNS} FROM forebay.batches WHERE tenant = $1 AND created_at > 0
    AND (created_at, id) < ($3::double precision, $4) ORDER BY created_at DESC, id DESC LIMIT $2
) AS found ON true ORDER BY found.created_at DESC, found.id DESC
"""
_OF_BATCH = "jobs.tenant = $1 AND batch = $2 AND batch <> '' AND line > $3"
_LINES = f"""
{_NOW} LEFT JOIN LATERAL (
    SELECT {_JOBS}, {", ".join(PAYLOAD_COLUMNS)} FROM forebay.jobs
    LEFT JOIN forebay.results ON results.tenant = jobs.tenant AND results.id = jobs.id
    WHERE {_OF_BATCH} ORDER BY line LIMIT $4
) AS found ON true ORDER BY found.line
"""
_UNFINISHED = f"""
{_NOW} LEFT JOIN LATERAL (
    SELECT {_JOBS} FROM forebay.jobs WHERE {_OF_BATCH} AND status IN ('queued', 'running') ORDER BY line LIMIT $4
) AS found ON true ORDER BY found.line
"""
_REJECTED_LINES = f"""
SELECT {", ".join(_REJECTED)} FROM forebay.rejected_lines
WHERE tenant = $1 AND batch = $2 AND line > $3 ORDER BY line LIMIT $4
"""
_FIRST: BatchPlace = (float("inf"), "")


async def project_batches(
    connection: Connection, facts: Iterable[Fact], changed: Iterable[tuple[Job | None, Job]], told: OutboxRows
) -> None:
    """`changed`: the jobs of these facts, as they were and as they are."""
    changes = changes_of((fact for fact in facts if isinstance(fact, BatchEvent)), changed)
    if not changes:
        return
    texts = [to_text(tenant) for tenant, _ in changes], [to_text(batch_id) for _, batch_id in changes]
    await connection.execute(_INSERT_STUBS, *texts)
    before = {(one.tenant, one.id): one for one in [_batch(row) for row in await connection.fetch(_LOCK, *texts)]}
    refused: list[tuple[Key, RejectedLine]] = []
    rows: list[Sequence[Any]] = []
    for key, change in changes.items():
        batch, rejected = change.apply(before[key])
        told.end_batch(before[key], batch)
        rows.append(_row(batch))
        refused += ((key, one) for one in rejected)
    await connection.executemany(_UPDATE, rows)
    if refused:
        columns = [
            (
                to_text(tenant),
                to_text(batch_id),
                one.line,
                *map(to_text, astuple(one)[1:]),
            )
            for (tenant, batch_id), one in refused
        ]
        await connection.execute(_REJECT, *([row[place] for row in columns] for place in range(7)))


async def read_batch(database: Database, tenant: str, batch_id: str) -> JobBatch | None:
    found = _seen(await database.fetch(_GET, to_text(tenant), to_text(batch_id)))
    return _batch(found[0]) if found else None


async def list_batches(database: Database, tenant: str, after: BatchPlace | None, limit: int) -> BatchPage:
    at, batch_id = after or _FIRST
    rows = await database.fetch(_LIST, to_text(tenant), limit + 1, at, to_text(batch_id), timeout_s=SCAN_S)
    found = [_batch(row) for row in _seen(rows)]
    batches = found[:limit]
    return BatchPage(batches, (batches[-1].created_at, batches[-1].id) if len(found) > limit else None)


async def read_lines(
    database: Database, tenant: str, batch_id: str, after: int, limit: int
) -> list[Job | RejectedLine]:
    place = to_text(tenant), to_text(batch_id), after, limit
    found: dict[int, Job | RejectedLine] = {}
    for row in await database.fetch(_REJECTED_LINES, *place, timeout_s=SCAN_S):
        number, code, message, pointer, custom_id = row
        found[number] = RejectedLine(
            line=number,
            code=from_text(code),
            message=from_text(message),
            pointer=from_text(pointer),
            custom_id=from_text(custom_id),
        )
    for columns in _seen(await database.fetch(_LINES, *place, timeout_s=SCAN_S)):
        job = from_job_row(columns[:_JOB_WIDTH], from_payload_columns(columns[_JOB_WIDTH:]))
        if job.line is not None:
            found[job.line.number] = job
    return [found[number] for number in sorted(found)[:limit]]


async def read_unfinished(database: Database, tenant: str, batch_id: str, after: int, limit: int) -> list[Job]:
    place = to_text(tenant), to_text(batch_id), after, limit
    return [from_job_row(columns) for columns in _seen(await database.fetch(_UNFINISHED, *place, timeout_s=SCAN_S))]


def _seen(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    """What was found beside whether a rebuild is under way. Raises Unavailable (`rebuilding`)."""
    if rows[0][0]:
        raise Unavailable("job states are being rebuilt from the log", code="rebuilding")
    return [tuple(row)[1:] for row in rows if row[1] is not None]


def _row(batch: JobBatch) -> Sequence[Any]:
    tenant, batch_id, model, *counts, webhooks = astuple(batch)
    return to_text(tenant), to_text(batch_id), to_text(model), *counts, to_targets(webhooks)


def _batch(row: Iterable[Any]) -> JobBatch:
    tenant, batch_id, model, *counts, webhooks = row
    columns = [from_text(tenant), from_text(batch_id), from_text(model), *counts, from_targets(webhooks)]
    return JobBatch(*columns)
