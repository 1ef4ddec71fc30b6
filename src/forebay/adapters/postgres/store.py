"""Visible job state: the tables `jobs`, `results`, `partials`, `batches`, `queue_counts`, `waiting`, `outstanding`,
`deliveries`, `positions` and `rebuilding`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import zip_longest
from typing import Any

import asyncpg
import msgspec
import structlog

from forebay.adapters.postgres import job_batches
from forebay.adapters.postgres.api_keys import PostgresApiKeys
from forebay.adapters.postgres.database import READ_S, SCAN_S, Database
from forebay.adapters.postgres.failures import is_busy
from forebay.adapters.postgres.outbox import PostgresOutbox
from forebay.adapters.postgres.projection import TRIES, notify, project
from forebay.adapters.postgres.quotas import PostgresQuotas
from forebay.adapters.postgres.reservations import FORGET_PUBLISHED, PostgresReservations
from forebay.adapters.postgres.rows import JOB_COLUMNS, PAYLOAD_COLUMNS, from_job_row, from_payload_columns
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.adapters.postgres.wakeups import EVERYBODY, Wakeups
from forebay.adapters.postgres.webhook_endpoints import PostgresWebhookEndpoints
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

log = structlog.get_logger(__name__)

_JOB = ", ".join(f"jobs.{name}" for name in JOB_COLUMNS)
_JOB_WIDTH = len(JOB_COLUMNS)

# One row always: whether a rebuild is under way must be known from the same moment as the job.
_REBUILDING = "(SELECT EXISTS (SELECT FROM forebay.rebuilding) AS rebuilding) AS now"
_GET = f"""
SELECT rebuilding, {_JOB}, {", ".join(PAYLOAD_COLUMNS)} FROM {_REBUILDING}
LEFT JOIN forebay.jobs ON jobs.tenant = $1 AND jobs.id = $2 AND (model <> '' OR deleted_at IS NOT NULL)
LEFT JOIN forebay.results ON results.tenant = jobs.tenant AND results.id = jobs.id
"""
_PARTIALS = f"""
SELECT rebuilding, attempt, first, last, chunks FROM {_REBUILDING} LEFT JOIN LATERAL (
    SELECT attempt, first, last, chunks FROM forebay.partials
    WHERE tenant = $1 AND id = $2 AND (attempt, last) >= ($3, $4) ORDER BY attempt, last LIMIT $5
) AS found ON true ORDER BY attempt, last
"""
# The last row to look at, by the index alone; then what fits of the rows down to it. The bound is a value, never an
# alternative: so that both ends of the range are ends of the scan.
_LIST = f"""
SELECT rebuilding, last.created_at, last.id, found.* FROM {_REBUILDING}
LEFT JOIN LATERAL (
    SELECT created_at, id FROM forebay.jobs WHERE tenant = $1 AND model <> ''{{ranged}}
    ORDER BY created_at DESC, id DESC OFFSET $3 LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
    SELECT {_JOB} FROM forebay.jobs WHERE tenant = $1 AND model <> ''{{ranged}}{{filters}}
    AND (created_at, id) >= (coalesce(last.created_at, '-infinity'), coalesce(last.id, ''))
    ORDER BY created_at DESC, id DESC LIMIT $2
) AS found ON true ORDER BY found.created_at DESC, found.id DESC
"""

_QUEUES = f"""
SELECT rebuilding, counted.*, oldest.created_at FROM {_REBUILDING}
LEFT JOIN (
    SELECT model, lane, sum(waiting)::bigint AS waiting, sum(running)::bigint AS running
    FROM forebay.queue_counts GROUP BY model, lane HAVING sum(waiting) <> 0 OR sum(running) <> 0
) AS counted ON true
LEFT JOIN LATERAL (
    SELECT created_at FROM forebay.waiting WHERE waiting.model = counted.model AND waiting.lane = counted.lane
    ORDER BY created_at LIMIT 1
) AS oldest ON true
ORDER BY counted.model, counted.lane
"""
_AHEAD = f"""
SELECT rebuilding, (SELECT count(*) FROM (
    SELECT FROM forebay.waiting WHERE model = $1 AND lane = $2 AND (created_at, id) < ($3, $4) LIMIT $5
) AS before) FROM {_REBUILDING}
"""

_COUNT = """
(SELECT least({1}, (SELECT count(*) FROM (
    SELECT FROM forebay.jobs WHERE tenant = $1 AND model <> '' AND created_at > {0} LIMIT {1}
) AS live) + (SELECT count(*) FROM (
    SELECT FROM forebay.jobs WHERE tenant = $1 AND deleted_at IS NOT NULL AND created_at > {0} LIMIT {1}
) AS deleted))::bigint)
"""
_USED = f"""
SELECT rebuilding, {_COUNT.format("$2", "$4")}, {_COUNT.format("$3", "$5")},
    (SELECT least(coalesce(sum(jobs), 0), $6)::bigint FROM forebay.outstanding WHERE tenant = $1)
FROM {_REBUILDING}
"""
_DUE = f"""
SELECT rebuilding, {_JOB} FROM {_REBUILDING}
LEFT JOIN LATERAL (
    SELECT * FROM forebay.jobs WHERE over_at <= $1 AND deleted_at IS NULL AND (over_at, tenant, id) > ($2, $3, $4)
    ORDER BY over_at, tenant, id LIMIT $5
) AS jobs ON true ORDER BY jobs.over_at, jobs.tenant, jobs.id
"""
_UNSWEPT = f"""
SELECT rebuilding, {_JOB} FROM {_REBUILDING} LEFT JOIN LATERAL (
    SELECT * FROM forebay.jobs WHERE over_at IS NOT NULL AND deleted_at IS NOT NULL
    AND (over_at, tenant, id) > ($1, $2, $3) AND NOT EXISTS (
        SELECT FROM (
            SELECT status, type FROM forebay.deliveries WHERE tenant = jobs.tenant AND job_id = jobs.id OFFSET 0
        ) AS told WHERE told.status = 'pending' AND told.type <> ''
    ) ORDER BY over_at, tenant, id LIMIT $4
) AS jobs ON true ORDER BY jobs.over_at, jobs.tenant, jobs.id
"""
_TOMBSTONES = f"""
SELECT rebuilding, {_JOB} FROM {_REBUILDING}
LEFT JOIN LATERAL (
    SELECT * FROM forebay.jobs WHERE deleted_at < $1 AND (deleted_at, tenant, id) > ($2, $3, $4)
    ORDER BY deleted_at, tenant, id LIMIT $5
) AS jobs ON true ORDER BY jobs.deleted_at, jobs.tenant, jobs.id
"""
# Locked in the order of the keys, as projectors do (`projection`): so they wait for each other and never in a circle.
# By the key alone: a condition on `deleted_at` would let the planner take an index of all tombstones of the tenant.
_GONE = """
WITH gone AS MATERIALIZED (
    SELECT job.tenant, job.id FROM unnest($1::text[], $2::text[]) AS wanted (tenant, id) CROSS JOIN LATERAL (
        SELECT tenant, id, deleted_at FROM forebay.jobs
        WHERE jobs.tenant = wanted.tenant AND jobs.id = wanted.id OFFSET 0 FOR UPDATE
    ) AS job WHERE job.deleted_at IS NOT NULL
)
"""
_SWEPT = f"""
{_GONE} UPDATE forebay.jobs SET over_at = NULL FROM gone WHERE jobs.tenant = gone.tenant AND jobs.id = gone.id
"""
_FORGET = f"""
{_GONE}, forgotten AS (
    DELETE FROM forebay.jobs USING gone WHERE jobs.tenant = gone.tenant AND jobs.id = gone.id
), told AS MATERIALIZED (
    SELECT delivery.* FROM gone CROSS JOIN LATERAL (
        SELECT tenant, job_id, id FROM forebay.deliveries
        WHERE deliveries.tenant = gone.tenant AND deliveries.job_id = gone.id ORDER BY deliveries.id FOR UPDATE
    ) AS delivery
), untold AS (
    DELETE FROM forebay.deliveries USING told
    WHERE deliveries.tenant = told.tenant AND deliveries.job_id = told.job_id AND deliveries.id = told.id
)
DELETE FROM forebay.reservations USING unnest($1::text[], $2::text[]) AS gone (tenant, id)
WHERE reservations.tenant = gone.tenant AND reservations.job_id = gone.id
"""

_encode = msgspec.json.Encoder(order="deterministic").encode
_until = msgspec.json.Decoder(dict[str, str]).decode


class PostgresStore(PostgresOutbox, ResultStore):
    """On the database that `dsn` names (postgresql://user:password@host:port/name?sslmode=...), in its schema
    `forebay`. Its role must be allowed to create that schema, or own it.

    Any number of processes may use one database. While it is away everything here raises Unavailable, and it works
    again once it is back.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wakeups = Wakeups(database)
        self._reservations = PostgresReservations(database)
        self.keys = PostgresApiKeys(database)
        self.quotas = PostgresQuotas(database)
        self.endpoints = PostgresWebhookEndpoints(database)

    @classmethod
    async def open(cls, dsn: str, *, connections: int = 8, idle_in_transaction_s: float = 10.0) -> PostgresStore:
        """Connect and bring the schema up to date; several processes may at once.

        It opens at most `connections`, and one more to hear of changes. After `idle_in_transaction_s` the server ends
        the transaction of a process that has stopped in its midst. Raises Unavailable within some two seconds if the
        server is away, and Misconfigured for what an operator must mend.
        """
        database = Database(dsn, connections=connections, idle_in_transaction_s=idle_in_transaction_s)
        try:
            await database.open()
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        await self._wakeups.close()
        await self._database.close()

    async def project(self, batches: Sequence[LogBatch]) -> list[Job] | None:
        return await project(self._database, batches)

    async def position(self, source: str) -> str:
        rows = await self._database.fetch("SELECT position FROM forebay.positions WHERE source = $1", to_text(source))
        return from_text(rows[0][0]) if rows else START

    async def positions(self) -> Mapping[str, str]:
        rows = await self._database.fetch("SELECT source, position FROM forebay.positions")
        return {from_text(source): from_text(position) for source, position in rows}

    async def begin_rebuild(self, ends: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        for _ in range(TRIES):
            async with self._database.borrow() as connection:
                try:
                    async with connection.transaction():
                        await connection.execute(
                            "TRUNCATE forebay.positions, forebay.jobs, forebay.results, forebay.partials, "
                            "forebay.batches, forebay.rejected_lines, "
                            "forebay.queue_counts, forebay.waiting, forebay.outstanding, forebay.rebuilding, "
                            "forebay.deliveries, forebay.held_outputs"
                        )
                        await connection.execute(FORGET_PUBLISHED)
                        until = await ends()  # now that no projector can write: TRUNCATE has locked the tables
                        await connection.execute("INSERT INTO forebay.rebuilding (until) VALUES ($1)", _encode(until))
                except asyncpg.PostgresError as error:
                    if not is_busy(error):
                        raise
                    log.info("store.rebuild_met_another", reason=str(error))  # a key was being reserved
                    continue
                await connection.execute(notify(EVERYBODY))
                return
        raise Unavailable(f"{self._database.where}: {TRIES} times others were in the way", retry_after_s=1.0)

    async def rebuilding(self) -> Mapping[str, str] | None:
        rows = await self._database.fetch("SELECT until FROM forebay.rebuilding")
        return _until(rows[0][0]) if rows else None

    async def end_rebuild(self) -> None:
        async with self._database.borrow() as connection:
            await connection.execute(f"DELETE FROM forebay.rebuilding; {notify(EVERYBODY)}")

    async def get(self, tenant: str, job_id: str) -> Job | None:
        [row] = await self._database.fetch(_GET, to_text(tenant), to_text(job_id))
        _refuse_while(row[0])
        if row[1] is None:
            return None
        columns = tuple(row)[1:]
        return from_job_row(columns[:_JOB_WIDTH], from_payload_columns(columns[_JOB_WIDTH:]))

    async def list_jobs(self, query: JobQuery) -> JobPage:
        arguments: list[Any] = [to_text(query.tenant), query.limit + 1, query.look - 1]

        def where(*conditions: tuple[str, Sequence[Any]]) -> str:
            """Those that ask for something; each `?` is an argument."""
            sql = ""
            for condition, values in conditions:
                if None in values:
                    continue
                sql += " AND "
                for part, value in zip_longest(condition.split("?"), values):
                    sql += part
                    if value is not None:
                        arguments.append(value)
                        sql += f"${len(arguments)}"
            return sql

        place = query.after or (None, None)
        ranged = where(
            ("created_at > ?", (query.created_after,)),
            ("created_at < ?", (query.created_before,)),
            ("(created_at, id) < (?, ?)", (place[0], None if place[1] is None else to_text(place[1]))),
        )
        filters = where(("model = ?", (_text(query.model),)), ("status = ?", (_text(query.status),)))
        sql = _LIST.format(ranged=ranged, filters=filters)
        rows = await self._database.fetch(sql, *arguments, timeout_s=SCAN_S)
        _refuse_while(rows[0][0])
        jobs = [from_job_row(tuple(row)[3:]) for row in rows if row[3] is not None]
        if len(jobs) > query.limit:
            jobs = jobs[: query.limit]
            return JobPage(jobs, (jobs[-1].created_at, jobs[-1].id))
        return JobPage(jobs, None if rows[0][1] is None else (rows[0][1], from_text(rows[0][2])))

    async def partials(self, tenant: str, job_id: str, attempt: int, chunk: int, limit: int) -> list[Partial]:
        rows = await self._database.fetch(_PARTIALS, to_text(tenant), to_text(job_id), attempt, chunk, limit)
        _refuse_while(rows[0][0])
        return [Partial(attempt=row[1], first=row[2], last=row[3], chunks=row[4]) for row in rows if row[1] is not None]

    async def batch(self, tenant: str, batch_id: str) -> JobBatch | None:
        return await job_batches.read_batch(self._database, tenant, batch_id)

    async def list_batches(self, tenant: str, *, after: BatchPlace | None, limit: int) -> BatchPage:
        return await job_batches.list_batches(self._database, tenant, after, limit)

    async def lines(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job | RejectedLine]:
        return await job_batches.read_lines(self._database, tenant, batch_id, after, limit)

    async def unfinished(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job]:
        return await job_batches.read_unfinished(self._database, tenant, batch_id, after, limit)

    async def queues(self) -> list[LaneCount]:
        rows = await self._database.fetch(_QUEUES)
        _refuse_while(rows[0][0])
        return [
            LaneCount(model=from_text(model), lane=from_text(lane), waiting=waiting, running=running, oldest_at=oldest)
            for _, model, lane, waiting, running, oldest in rows
            if model is not None
        ]

    async def ahead(self, job: Job, look: int) -> int:
        place = (to_text(job.model), to_text(job.lane), job.created_at, to_text(job.id))
        rows = await self._database.fetch(_AHEAD, *place, look, timeout_s=SCAN_S)
        _refuse_while(rows[0][0])
        return int(rows[0][1])

    async def used(self, tenant: str, *, minute_from: float, day_from: float, most: Use) -> Use:
        mosts = (most.jobs_per_minute, most.jobs_per_day, most.jobs_outstanding)
        [row] = await self._database.fetch(_USED, to_text(tenant), minute_from, day_from, *mosts, timeout_s=SCAN_S)
        _refuse_while(row[0])
        return Use(jobs_per_minute=row[1], jobs_per_day=row[2], jobs_outstanding=row[3])

    async def due(self, now: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self._jobs(_DUE, now, *_place(after), limit)

    async def unswept(self, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self._jobs(_UNSWEPT, *_place(after), limit, timeout_s=SCAN_S)  # it may pass over many

    async def swept(self, tombstones: Sequence[Job]) -> None:
        await self._database.fetch(_SWEPT, *_keys(tombstones))

    async def tombstones(self, before: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        return await self._jobs(_TOMBSTONES, before, *_place(after), limit)

    async def forget(self, tombstones: Sequence[Job]) -> None:
        await self._database.fetch(_FORGET, *_keys(tombstones))

    async def forget_unpublished(self, before: float) -> None:
        await self._reservations.forget_unpublished(before)

    async def _jobs(self, sql: str, *arguments: Any, timeout_s: float = READ_S) -> list[Job]:
        rows = await self._database.fetch(sql, *arguments, timeout_s=timeout_s)
        _refuse_while(rows[0][0])
        return [from_job_row(tuple(row)[1:]) for row in rows if row[1] is not None]

    async def reserve(self, wanted: Reservation, *, holder: str, lease_s: float) -> Claim:
        return await self._reservations.reserve(wanted, holder, lease_s)

    async def published(self, reservation: Reservation) -> None:
        await self._reservations.published(reservation)

    async def release(self, reservation: Reservation, *, holder: str) -> None:
        await self._reservations.release(reservation, holder)

    async def withdraw(self, reservation: Reservation, *, holder: str) -> None:
        await self._reservations.withdraw(reservation, holder)

    async def reserved(self, tenant: str, key: str) -> Reservation | None:
        return await self._reservations.read(tenant, key)

    async def published_of(self, tenant: str, keys: Sequence[str]) -> frozenset[str]:
        return await self._reservations.published_of(tenant, keys)

    def subscribe(self, tenant: str, job_id: str) -> AbstractAsyncContextManager[Subscription]:
        return self._wakeups.subscribe(tenant, job_id)


def _place(place: DuePlace) -> DuePlace:
    return place[0], to_text(place[1]), to_text(place[2])


def _keys(jobs: Sequence[Job]) -> tuple[list[str], list[str]]:
    keys = sorted((job.tenant, job.id) for job in jobs)
    return [to_text(tenant) for tenant, _ in keys], [to_text(job_id) for _, job_id in keys]


def _text(value: str | None) -> str | None:
    return None if value is None else to_text(value)


def _refuse_while(rebuilding: bool) -> None:
    if rebuilding:
        raise Unavailable("job states are being rebuilt from the log", code="rebuilding")
