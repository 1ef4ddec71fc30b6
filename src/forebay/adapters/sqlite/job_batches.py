"""Batches: the tables `batches` and `rejected_lines`, and the jobs of a batch in the order of their lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
from msgspec.structs import astuple, fields

from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.rows import JOB_COLUMNS, from_job_row, from_result_columns, from_targets, to_targets
from forebay.adapters.sqlite.statements import write_rows
from forebay.core.fact import Fact
from forebay.core.job import Job
from forebay.core.job_batch import BatchEvent, JobBatch, RejectedLine, changes_of
from forebay.core.outbox import OutboxRows
from forebay.ports.job_batches import BatchPage, BatchPlace

_COLUMNS = ", ".join(field.name for field in fields(JobBatch))
_REJECTED = "line, code, message, pointer, custom_id"
_GET = f"SELECT {_COLUMNS} FROM batches WHERE tenant = ? AND id = ?"
_JOBS = ", ".join(f"jobs.{column}" for column in JOB_COLUMNS.split(", "))
_OF_BATCH = "WHERE jobs.tenant = ? AND batch = ? AND batch <> '' AND line > ?"
_LINES = f"""
SELECT {_JOBS}, media_type, data, blob_name, blob_size_bytes, blob_sha256
FROM jobs LEFT JOIN results ON results.tenant = jobs.tenant AND results.id = jobs.id
{_OF_BATCH} ORDER BY line LIMIT ?
"""
_JOB_WIDTH = len(JOB_COLUMNS.split(", "))
_UNFINISHED = f"SELECT {_JOBS} FROM jobs {_OF_BATCH} AND status IN ('queued', 'running') ORDER BY line LIMIT ?"


def project_batches(
    connection: apsw.Connection, facts: Iterable[Fact], changed: Iterable[tuple[Job | None, Job]], told: OutboxRows
) -> None:
    """`changed`: the jobs of these facts, as they were and as they are."""
    events = [fact for fact in facts if isinstance(fact, BatchEvent)]
    batches: list[JobBatch] = []
    refused: list[tuple[str, str, RejectedLine]] = []
    for (tenant, batch_id), changes in changes_of(events, changed).items():
        rows = connection.execute(_GET, (tenant, batch_id)).fetchall()
        before = _batch(rows[0]) if rows else JobBatch(tenant=tenant, id=batch_id)
        batch, rejected = changes.apply(before)
        told.end_batch(before, batch)
        batches.append(batch)
        refused += ((tenant, batch_id, one) for one in rejected)
    write_rows(connection, f"INSERT OR REPLACE INTO batches ({_COLUMNS}) VALUES", [_row(one) for one in batches])
    write_rows(
        connection,
        f"INSERT OR IGNORE INTO rejected_lines (tenant, batch, {_REJECTED}) VALUES",
        [(tenant, batch_id, *astuple(one)) for tenant, batch_id, one in refused],
    )


def read_batch(database: Database, tenant: str, batch_id: str) -> JobBatch | None:
    rows = database.read(f"{_GET} AND created_at > 0", (tenant, batch_id))
    return _batch(rows[0]) if rows else None


async def list_batches(database: Database, tenant: str, after: BatchPlace | None, limit: int) -> BatchPage:
    behind = " AND (created_at, id) < (?, ?)" if after else ""
    rows = await database.scan(
        f"SELECT {_COLUMNS} FROM batches WHERE tenant = ? AND created_at > 0{behind} "
        "ORDER BY created_at DESC, id DESC LIMIT ?",
        (tenant, *(after or ()), limit + 1),
    )
    batches = [_batch(row) for row in rows[:limit]]
    return BatchPage(batches, (batches[-1].created_at, batches[-1].id) if len(rows) > limit else None)


async def read_lines(
    database: Database, tenant: str, batch_id: str, after: int, limit: int
) -> list[Job | RejectedLine]:
    found: dict[int, Job | RejectedLine] = {}
    for row in await database.scan(
        f"SELECT {_REJECTED} FROM rejected_lines WHERE tenant = ? AND batch = ? AND line > ? ORDER BY line LIMIT ?",
        (tenant, batch_id, after, limit),
    ):
        found[row[0]] = RejectedLine(**dict(zip(_REJECTED.split(", "), row, strict=True)))
    for row in await database.scan(_LINES, (tenant, batch_id, after, limit)):
        job = from_job_row(row[:_JOB_WIDTH], from_result_columns(*row[_JOB_WIDTH:]))
        if job.line is not None:
            found[job.line.number] = job
    return [found[number] for number in sorted(found)[:limit]]


async def read_unfinished(database: Database, tenant: str, batch_id: str, after: int, limit: int) -> list[Job]:
    return [from_job_row(row) for row in await database.scan(_UNFINISHED, (tenant, batch_id, after, limit))]


def _row(batch: JobBatch) -> tuple[Any, ...]:
    *columns, webhooks = astuple(batch)
    return *columns, to_targets(webhooks)


def _batch(row: Sequence[Any]) -> JobBatch:
    """`webhooks` is the last column."""
    columns = [*row[:-1], from_targets(row[-1])]
    return JobBatch(*columns)
