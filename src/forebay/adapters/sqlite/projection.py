"""Facts in, rows out: one batch of the event log applied in the writer's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import apsw
from msgspec.structs import replace

from forebay.adapters.sqlite.deliveries import project_deliveries, take_held
from forebay.adapters.sqlite.job_batches import project_batches
from forebay.adapters.sqlite.reservations import project_reservations
from forebay.adapters.sqlite.rows import (
    JOB_COLUMNS,
    PARTIAL_COLUMNS,
    RESULT_COLUMNS,
    from_job_row,
    from_result_columns,
    to_job_row,
    to_partial_row,
    to_result_row,
)
from forebay.adapters.sqlite.statements import parts, values, write_rows
from forebay.core.delivery import DeliveryEvent
from forebay.core.fact import OF_JOBS
from forebay.core.job import Job, apply
from forebay.core.outbox import OutboxRows
from forebay.core.partials import Key, PartialRows
from forebay.core.payload import Payload
from forebay.core.queues import moved, outstanding
from forebay.ports.event_log import START, LogBatch

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

_INSERT_JOBS = f"INSERT INTO jobs ({JOB_COLUMNS}) VALUES"
_INSERT_RESULTS = f"INSERT INTO results ({RESULT_COLUMNS}) VALUES"
_INSERT_PARTIALS = f"INSERT OR REPLACE INTO partials ({PARTIAL_COLUMNS}) VALUES"
_COUNT = "INSERT INTO queue_counts VALUES"
_ADD = (
    "ON CONFLICT (model, lane) DO UPDATE SET waiting = waiting + excluded.waiting, running = running + excluded.running"
)
_ADD_OUTSTANDING = "ON CONFLICT (tenant) DO UPDATE SET jobs = jobs + excluded.jobs"
_UPDATE_JOBS = f"WITH new ({JOB_COLUMNS}) AS (VALUES"


def _set(columns: Sequence[str]) -> str:
    assignments = ", ".join(f"{name} = new.{name}" for name in columns)
    return f") UPDATE jobs SET {assignments} FROM new WHERE jobs.tenant = new.tenant AND jobs.id = new.id"


# What the request says is written once; leaving it out of later updates leaves the index alone.
_SET_ATTEMPT = _set(_OF_ATTEMPT)
_SET_ALL = _set(_OF_ATTEMPT + _OF_REQUEST)
_SET_DELETED = _set((*_OF_ATTEMPT, *_OF_REQUEST, "deleted_at"))


def project(connection: apsw.Connection, calls: Sequence[Sequence[LogBatch]]) -> list[list[Job] | None]:
    """Each call by itself: one that finds another position changes nothing and spoils no other."""
    return [_project(connection, batches) for batches in calls]


def _project(connection: apsw.Connection, batches: Sequence[LogBatch]) -> list[Job] | None:
    if not all(_is_at_start(connection, batch) for batch in batches):
        return None
    _advance(connection, batches)
    facts = [fact for batch in batches for fact in batch.facts]
    before = _load(connection, {(fact.tenant, fact.job_id): None for fact in facts if isinstance(fact, OF_JOBS)})
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
    gone = _deleted(connection, told.heard)
    outputs = _outputs(connection, told.to_read(changed))
    _save(connection, changed)
    _save_partials(connection, partials)
    project_batches(connection, facts, changed, told)
    write_rows(connection, _COUNT, [(*place, *by) for place, by in moved(changed).items()], _ADD)
    write_rows(connection, "INSERT INTO outstanding VALUES", list(outstanding(changed).items()), _ADD_OUTSTANDING)
    project_reservations(connection, facts)
    told.release(take_held(connection, told.late))
    told.end_jobs(outputs)
    project_deliveries(connection, told, gone)
    return [_whole(job, outputs) for _, job in changed if job.model or job.deleted_at is not None]


def _is_at_start(connection: apsw.Connection, batch: LogBatch) -> bool:
    """Compare before set: whoever comes second finds another position. Nobody writes between: there is one writer."""
    row = connection.execute("SELECT position FROM positions WHERE source = ?", (batch.source,)).fetchall()
    return (row[0][0] if row else START) == batch.start


def _advance(connection: apsw.Connection, batches: Sequence[LogBatch]) -> None:
    ends = [(batch.source, batch.end) for batch in batches]
    write_rows(connection, "INSERT OR REPLACE INTO positions VALUES", ends)


def _load(connection: apsw.Connection, keys: dict[Key, None]) -> dict[Key, Job | None]:
    jobs: dict[Key, Job | None] = dict(keys)
    for part in parts(list(keys)):
        sql = f"SELECT {JOB_COLUMNS} FROM jobs WHERE (tenant, id) IN (VALUES {values(2, len(part))})"
        for row in connection.execute(sql, [text for key in part for text in key]):
            jobs[row[0], row[1]] = from_job_row(row)
    return jobs


def _save(connection: apsw.Connection, changed: list[tuple[Job | None, Job]]) -> None:
    """Results first: the schema takes none for a job that is final already."""
    results = [
        to_result_row(job, job.output)
        for old, job in changed
        if job.output is not None and job.status.final and not (old is not None and old.status.final)
    ]
    write_rows(connection, _INSERT_RESULTS, results)
    write_rows(connection, _INSERT_JOBS, [to_job_row(job) for old, job in changed if old is None])
    deleted = [job for old, job in changed if old is not None and job.deleted_at is not None]
    write_rows(connection, _UPDATE_JOBS, [to_job_row(job) for job in deleted], _SET_DELETED)
    for part in parts([(job.tenant, job.id) for job in deleted]):
        keys = [text for key in part for text in key]
        connection.execute(f"DELETE FROM results WHERE (tenant, id) IN (VALUES {values(2, len(part))})", keys)
        connection.execute(f"DELETE FROM held_outputs WHERE (tenant, job_id) IN (VALUES {values(2, len(part))})", keys)
    known = [(old, to_job_row(job)) for old, job in changed if old is not None and job.deleted_at is None]
    write_rows(connection, _UPDATE_JOBS, [row for old, row in known if old.model], _SET_ATTEMPT)
    write_rows(connection, _UPDATE_JOBS, [row for old, row in known if not old.model], _SET_ALL)


def _save_partials(connection: apsw.Connection, partials: PartialRows) -> None:
    for key in partials.dropped:
        connection.execute("DELETE FROM partials WHERE tenant = ? AND id = ?", key)
    rows = [to_partial_row(key, partial) for key, added in partials.added.items() for partial in added]
    write_rows(connection, _INSERT_PARTIALS, rows)


def _outputs(connection: apsw.Connection, keys: Collection[Key]) -> dict[Key, Payload]:
    found: dict[Key, Payload] = {}
    for part in parts(list(keys)):
        sql = f"SELECT {RESULT_COLUMNS} FROM results WHERE (tenant, id) IN (VALUES {values(2, len(part))})"
        rows: Iterable[Any] = connection.execute(sql, [text for key in part for text in key])
        for tenant, job_id, *columns in rows:
            output = from_result_columns(*columns)
            if output is not None:
                found[tenant, job_id] = output
    return found


def _deleted(connection: apsw.Connection, keys: Collection[Key]) -> list[Key]:
    """Those of them that are."""
    found: list[Key] = []
    for part in parts(list(keys)):
        wanted = f"(tenant, id) IN (VALUES {values(2, len(part))})"
        sql = f"SELECT tenant, id FROM jobs WHERE deleted_at IS NOT NULL AND {wanted}"
        rows: Iterable[Any] = connection.execute(sql, [text for key in part for text in key])
        found += ((tenant, job_id) for tenant, job_id in rows)
    return found


def _whole(job: Job, outputs: Mapping[Key, Payload]) -> Job:
    """With its output, if that is not with it."""
    output = outputs.get((job.tenant, job.id))
    return job if output is None or job.deleted_at is not None else replace(job, output=output)
