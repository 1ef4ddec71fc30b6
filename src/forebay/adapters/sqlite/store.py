"""Visible job state: the tables that are derived from the log, `reservations`, and `rebuilding`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import apsw
import msgspec

from forebay.adapters.sqlite import job_batches, reservations
from forebay.adapters.sqlite.bell import Bell
from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.outbox import SqliteOutbox
from forebay.adapters.sqlite.projection import project
from forebay.adapters.sqlite.reservations import Wish
from forebay.adapters.sqlite.rows import JOB_COLUMNS, from_job_row, from_result_columns
from forebay.adapters.sqlite.statements import parts, values
from forebay.core.errors import Unavailable
from forebay.core.job import Job
from forebay.core.job_batch import JobBatch, RejectedLine
from forebay.core.partials import Partial
from forebay.core.queues import LaneCount
from forebay.core.quota import Use
from forebay.core.reservation import Reservation
from forebay.ports.due import FRONT, DuePlace
from forebay.ports.event_log import START, LogBatch
from forebay.ports.job_batches import BatchPage, BatchPlace
from forebay.ports.reservations import Claim
from forebay.ports.store import JobPage, JobQuery, ResultStore, Subscription

_JOB = ", ".join(f"jobs.{column}" for column in JOB_COLUMNS.split(", "))
_GET = f"""
SELECT {_JOB}, media_type, data, blob_name, blob_size_bytes, blob_sha256
FROM jobs LEFT JOIN results ON results.tenant = jobs.tenant AND results.id = jobs.id
WHERE jobs.tenant = ? AND jobs.id = ? AND (model <> '' OR deleted_at IS NOT NULL)
"""
_PARTIALS = """
SELECT attempt, first, last, chunks FROM partials
WHERE tenant = ? AND id = ? AND (attempt, last) >= (?, ?) ORDER BY attempt, last LIMIT ?
"""
_JOB_WIDTH = len(JOB_COLUMNS.split(", "))
_NEWEST = "ORDER BY created_at DESC, id DESC"
_LIVE = "(SELECT count(*) FROM (SELECT 1 FROM jobs WHERE tenant = ? AND model <> '' AND created_at > ? LIMIT ?))"
_DELETED = _LIVE.replace("model <> ''", "deleted_at IS NOT NULL")
_COUNT = f"{_LIVE} + {_DELETED}"
_USED = f"SELECT {_COUNT}, {_COUNT}, (SELECT min(jobs, ?) FROM outstanding WHERE tenant = ?)"
_DERIVED = (
    "jobs",
    "results",
    "partials",
    "batches",
    "rejected_lines",
    "positions",
    "queue_counts",
    "outstanding",
    "deliveries",
    "held_outputs",
)

_OLDEST = """
SELECT created_at FROM jobs WHERE status = 'queued' AND model = counts.model AND model <> '' AND lane = counts.lane
ORDER BY created_at LIMIT 1
"""
_QUEUES = f"""
SELECT model, lane, waiting, running, ({_OLDEST}) FROM queue_counts AS counts WHERE waiting <> 0 OR running <> 0
ORDER BY model, lane
"""
_BEFORE = """
SELECT 1 FROM jobs WHERE status = 'queued' AND model = ? AND model <> '' AND lane = ? AND (created_at, id) < (?, ?)
"""
_AHEAD = f"SELECT count(*) FROM ({_BEFORE} LIMIT ?)"

# Each through an index of the one time, which goes on with the key of the table.
_DUE = f"""
SELECT {JOB_COLUMNS} FROM jobs WHERE over_at <= ? AND deleted_at IS NULL AND (over_at, tenant, id) > (?, ?, ?)
ORDER BY over_at, tenant, id LIMIT ?
"""
_UNSWEPT = f"""
SELECT {JOB_COLUMNS} FROM jobs WHERE over_at IS NOT NULL AND deleted_at IS NOT NULL
AND (over_at, tenant, id) > (?, ?, ?) AND NOT EXISTS (
    SELECT 1 FROM deliveries
    WHERE deliveries.tenant = jobs.tenant AND job_id = jobs.id AND deliveries.status = 'pending' AND type <> ''
) ORDER BY over_at, tenant, id LIMIT ?
"""
_TOMBSTONES = f"""
SELECT {JOB_COLUMNS} FROM jobs WHERE deleted_at < ? AND (deleted_at, tenant, id) > (?, ?, ?)
ORDER BY deleted_at, tenant, id LIMIT ?
"""

_encode = msgspec.json.Encoder(order="deterministic").encode
_until = msgspec.json.Decoder(dict[str, str]).decode


class SqliteStore(SqliteOutbox, ResultStore):
    """Derived rows are not flushed of themselves: after a power cut they are read again from the log, which is."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._subscriptions: dict[tuple[str, str], set[SqliteSubscription]] = {}
        begun = database.read("SELECT until FROM rebuilding")
        self._rebuilding: Mapping[str, str] | None = _until(begun[0][0]) if begun else None

    async def project(self, batches: Sequence[LogBatch]) -> list[Job] | None:
        return await self._database.write(project, batches, durable=False, committed=self._wake)

    async def position(self, source: str) -> str:
        rows = self._database.read("SELECT position FROM positions WHERE source = ?", (source,))
        return str(rows[0][0]) if rows else START

    async def positions(self) -> Mapping[str, str]:
        return dict(self._database.read("SELECT source, position FROM positions"))

    async def begin_rebuild(self, ends: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        until = await ends()  # nobody else writes: the file is this process's, and its projector begins after this
        await self._database.write(_empty, _encode(until).decode(), durable=True)
        self._rebuilding = dict(until)

    async def rebuilding(self) -> Mapping[str, str] | None:
        return self._rebuilding

    async def end_rebuild(self) -> None:
        await self._database.write(_opened, None, durable=True)
        self._rebuilding = None

    async def get(self, tenant: str, job_id: str) -> Job | None:
        self._refuse_while_rebuilding()
        for row in self._database.read(_GET, (tenant, job_id)):
            return from_job_row(row[:_JOB_WIDTH], from_result_columns(*row[_JOB_WIDTH:]))
        return None

    async def list_jobs(self, query: JobQuery) -> JobPage:
        self._refuse_while_rebuilding()
        bounds = [
            ("created_at > ?", query.created_after),
            ("created_at < ?", query.created_before),
            ("(created_at, id) < (?, ?)", query.after),
        ]
        ranged, in_range = _where([("tenant = ?", query.tenant), *bounds])
        filters, wanted = _where([("model = ?", query.model), ("status = ?", query.status)])
        # The last row to look at, by the index alone; then what fits of the rows down to it.
        last = await self._database.scan(
            f"SELECT created_at, id FROM jobs WHERE model <> ''{ranged} {_NEWEST} LIMIT 1 OFFSET ?",
            (*in_range, query.look - 1),
        )
        down_to, floor = _where([("(created_at, id) >= (?, ?)", tuple(last[0]) if last else None)])
        rows = await self._database.scan(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE model <> ''{ranged}{down_to}{filters} {_NEWEST} LIMIT ?",
            (*in_range, *floor, *wanted, query.limit + 1),
        )
        jobs = [from_job_row(row) for row in rows[: query.limit]]
        if len(rows) > query.limit:
            return JobPage(jobs, (jobs[-1].created_at, jobs[-1].id))
        return JobPage(jobs, tuple(last[0]) if last else None)

    async def partials(self, tenant: str, job_id: str, attempt: int, chunk: int, limit: int) -> list[Partial]:
        self._refuse_while_rebuilding()
        rows = self._database.read(_PARTIALS, (tenant, job_id, attempt, chunk, limit))
        return [Partial(attempt=row[0], first=row[1], last=row[2], chunks=row[3]) for row in rows]

    async def batch(self, tenant: str, batch_id: str) -> JobBatch | None:
        self._refuse_while_rebuilding()
        return job_batches.read_batch(self._database, tenant, batch_id)

    async def list_batches(self, tenant: str, *, after: BatchPlace | None, limit: int) -> BatchPage:
        self._refuse_while_rebuilding()
        return await job_batches.list_batches(self._database, tenant, after, limit)

    async def lines(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job | RejectedLine]:
        self._refuse_while_rebuilding()
        return await job_batches.read_lines(self._database, tenant, batch_id, after, limit)

    async def unfinished(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job]:
        self._refuse_while_rebuilding()
        return await job_batches.read_unfinished(self._database, tenant, batch_id, after, limit)

    async def queues(self) -> list[LaneCount]:
        self._refuse_while_rebuilding()
        return [
            LaneCount(model=model, lane=lane, waiting=waiting, running=running, oldest_at=oldest)
            for model, lane, waiting, running, oldest in self._database.read(_QUEUES)
        ]

    async def ahead(self, job: Job, look: int) -> int:
        self._refuse_while_rebuilding()
        counted = await self._database.scan(_AHEAD, (job.model, job.lane, job.created_at, job.id, look))
        return int(counted[0][0])

    async def used(self, tenant: str, *, minute_from: float, day_from: float, most: Use) -> Use:
        self._refuse_while_rebuilding()
        minute_most, day_most = most.jobs_per_minute, most.jobs_per_day
        of_minute, of_day = (tenant, minute_from, minute_most) * 2, (tenant, day_from, day_most) * 2
        arguments = (*of_minute, *of_day, most.jobs_outstanding, tenant)
        [(minute, day, outstanding)] = await self._database.scan(_USED, arguments)
        return Use(
            jobs_per_minute=min(minute_most, minute),
            jobs_per_day=min(day_most, day),
            jobs_outstanding=outstanding or 0,
        )

    async def due(self, now: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self._jobs(_DUE, (now, *after, limit))

    async def unswept(self, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self._jobs(_UNSWEPT, (*after, limit))

    async def swept(self, jobs: Sequence[Job]) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(_swept, [(job.tenant, job.id) for job in jobs], durable=False)

    async def tombstones(self, before: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self._jobs(_TOMBSTONES, (before, *after, limit))

    async def _jobs(self, sql: str, arguments: tuple[apsw.SQLiteValue, ...]) -> list[Job]:
        self._refuse_while_rebuilding()
        return [from_job_row(row) for row in await self._database.scan(sql, arguments)]

    async def forget(self, jobs: Sequence[Job]) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(_forget, [(job.tenant, job.id) for job in jobs], durable=False)

    async def forget_unpublished(self, before: float) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(reservations.forget_unpublished, before, durable=False)

    async def reserve(self, wanted: Reservation, *, holder: str, lease_s: float) -> Claim:
        self._refuse_while_rebuilding()
        wish = Wish(wanted, holder, lease_s, self._clock())
        return await self._database.write(reservations.reserve, wish, durable=True)

    async def published(self, reservation: Reservation) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(reservations.mark_published, reservation, durable=False)

    async def release(self, reservation: Reservation, *, holder: str) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(reservations.release, (reservation, holder), durable=False)

    async def withdraw(self, reservation: Reservation, *, holder: str) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(reservations.withdraw, (reservation, holder), durable=False)

    async def reserved(self, tenant: str, key: str) -> Reservation | None:
        self._refuse_while_rebuilding()
        rows = self._database.read(reservations.READ, (tenant, key))
        return reservations.from_row(rows[0]) if rows else None

    async def published_of(self, tenant: str, keys: Sequence[str]) -> frozenset[str]:
        self._refuse_while_rebuilding()
        return frozenset(
            row[0]
            for part in parts(keys)
            for row in self._database.read(reservations.read_published(len(part)), (tenant, *part))
        )

    def _refuse_while_rebuilding(self) -> None:
        if self._rebuilding is not None:
            raise Unavailable("job states are being rebuilt from the log", code="rebuilding")

    def subscribe(self, tenant: str, job_id: str) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribe((tenant, job_id))

    @asynccontextmanager
    async def _subscribe(self, key: tuple[str, str]) -> AsyncIterator[Subscription]:
        subscription = SqliteSubscription()
        of_job = self._subscriptions.setdefault(key, set())
        of_job.add(subscription)
        try:
            yield subscription
        finally:
            of_job.discard(subscription)
            if not of_job:
                self._subscriptions.pop(key, None)

    def _wake(self, changed: list[Job] | None) -> None:
        for job in changed or ():
            for subscription in self._subscriptions.get((job.tenant, job.id), ()):
                subscription.wake()


class SqliteSubscription(Subscription):
    """Woken by the projection of the same process, which is the only one."""

    def __init__(self) -> None:
        self._changed = False
        self._bell = Bell()

    def wake(self) -> None:
        self._changed = True
        self._bell.ring()

    async def changed(self, timeout_s: float) -> bool:
        if not self._changed and timeout_s > 0:
            await self._bell.wait(timeout_s)
        changed, self._changed = self._changed, False
        return changed


def _where(conditions: Sequence[tuple[str, Any]]) -> tuple[str, list[Any]]:
    """Those that ask for something, and their arguments."""
    asked = [(sql, value if isinstance(value, tuple) else (value,)) for sql, value in conditions if value is not None]
    return "".join(f" AND {sql}" for sql, _ in asked), [one for _, values in asked for one in values]


def _empty(connection: apsw.Connection, calls: Sequence[str]) -> Sequence[None]:
    for table in (*_DERIVED, "rebuilding"):
        connection.execute(f"DELETE FROM {table}")
    connection.execute("DELETE FROM reservations WHERE published")  # the others stand for what may not be in the log
    connection.execute("INSERT INTO rebuilding VALUES (?)", (calls[-1],))
    return [None] * len(calls)


def _swept(connection: apsw.Connection, calls: Sequence[Sequence[tuple[str, str]]]) -> Sequence[None]:
    _each(connection, "UPDATE jobs SET over_at = NULL WHERE deleted_at IS NOT NULL AND (tenant, id)", calls)
    return [None] * len(calls)


def _forget(connection: apsw.Connection, calls: Sequence[Sequence[tuple[str, str]]]) -> Sequence[None]:
    _each(connection, "DELETE FROM jobs WHERE deleted_at IS NOT NULL AND (tenant, id)", calls)
    _each(connection, "DELETE FROM deliveries WHERE (tenant, job_id)", calls)
    _each(connection, "DELETE FROM reservations WHERE (tenant, job_id)", calls)
    return [None] * len(calls)


def _each(connection: apsw.Connection, sql: str, calls: Sequence[Sequence[tuple[str, str]]]) -> None:
    for part in parts([key for keys in calls for key in keys]):
        connection.execute(f"{sql} IN (VALUES {values(2, len(part))})", [text for key in part for text in key])


def _opened(connection: apsw.Connection, calls: Sequence[None]) -> Sequence[None]:
    connection.execute("DELETE FROM rebuilding")
    return calls
