"""The outbox: who sends which delivery, and what became of it. Several dispatchers claim side by side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from forebay.adapters.postgres.database import SCAN_S, Database
from forebay.adapters.postgres.deliveries import COLUMNS, from_row, update
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.core.delivery import DeliveryEvent, WebhookDelivery, apply_delivery
from forebay.core.errors import Unavailable
from forebay.ports.outbox import COUNTED_MOST, DeliveryPage, DeliveryQuery, Outbox, OutboxCount

if TYPE_CHECKING:
    from forebay.adapters.postgres.database import Connection

_PENDING = "status = 'pending' AND type <> ''"
_COLUMNS = ", ".join(COLUMNS)
_WIDTH = len(COLUMNS)
_SAME = "deliveries.tenant = found.tenant AND deliveries.job_id = found.job_id AND deliveries.id = found.id"

# One row always: whether a rebuild is under way must be known from the same moment.
_NOW = "(SELECT EXISTS (SELECT FROM forebay.rebuilding) AS rebuilding) AS now"

# From one receiver to the next through the index, however many of its rows lie between (a "loose index scan",
# wiki.postgresql.org/wiki/Loose_indexscan).
_RECEIVERS = f"""
receivers AS (
    (SELECT receiver FROM forebay.deliveries WHERE {_PENDING} ORDER BY receiver LIMIT 1)
    UNION ALL
    SELECT (
        SELECT receiver FROM forebay.deliveries WHERE {_PENDING} AND deliveries.receiver > receivers.receiver
        ORDER BY receiver LIMIT 1
    ) FROM receivers WHERE receivers.receiver IS NOT NULL
)
"""
_TAKE = f"""
taken AS (
    UPDATE forebay.deliveries SET holder = $2, held_until = $3 FROM found WHERE {_SAME}
    RETURNING {", ".join(f"deliveries.{name}" for name in COLUMNS)}, body
)
SELECT rebuilding, taken.* FROM {_NOW} LEFT JOIN taken ON true
"""
# What another has locked, a dispatcher or a projector, is passed over: so nobody waits here.
_CLAIM = f"""
due AS MATERIALIZED (
    SELECT due.* FROM receivers CROSS JOIN LATERAL (
        SELECT tenant, job_id, id, next_at FROM forebay.deliveries
        WHERE {_PENDING} AND deliveries.receiver = receivers.receiver AND next_at <= $1 AND held_until <= $1
        ORDER BY next_at, id LIMIT $5 FOR UPDATE SKIP LOCKED
    ) AS due WHERE receivers.receiver <> ALL ($6::text[])
), found AS MATERIALIZED (SELECT * FROM due ORDER BY next_at, id LIMIT $4), {_TAKE}
"""
_CLAIM_ANY = f"WITH RECURSIVE {_RECEIVERS}, {_CLAIM}"
_CLAIM_ONLY = f"WITH receivers (receiver) AS (SELECT * FROM unnest($7::text[])), {_CLAIM}"
_CLAIM_LATE = f"""
WITH found AS MATERIALIZED (
    SELECT tenant, job_id, id FROM forebay.deliveries WHERE {_PENDING} AND gives_up_at <= $1 AND held_until <= $1
    ORDER BY gives_up_at LIMIT $4 FOR UPDATE SKIP LOCKED
), {_TAKE}
"""
_LOCK_HELD = f"""
SELECT rebuilding, held.* FROM {_NOW} LEFT JOIN LATERAL (
    SELECT delivery.* FROM unnest($2::text[], $3::text[], $4::text[]) AS wanted (tenant, job_id, id)
    CROSS JOIN LATERAL (
        SELECT {_COLUMNS} FROM forebay.deliveries
        WHERE deliveries.tenant = wanted.tenant AND deliveries.job_id = wanted.job_id AND deliveries.id = wanted.id
        AND holder = $1 FOR UPDATE
    ) AS delivery
) AS held ON true
"""
_RELEASE = """
UPDATE forebay.deliveries SET holder = '', held_until = 0 WHERE tenant = $1 AND job_id = $2 AND id = $3
"""
_LOCK_ALL_HELD = f"""
SELECT rebuilding, held.* FROM {_NOW} LEFT JOIN LATERAL (
    SELECT tenant, job_id, id FROM forebay.deliveries WHERE holder = $1 AND holder <> ''
    ORDER BY tenant, job_id, id FOR UPDATE
) AS held ON true
"""
# By the key alone: a condition on the type would let the planner take the index of another order, and pass over all
# others of the tenant.
_OF_JOB = f"""
SELECT rebuilding, found.* FROM {_NOW} LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT {_COLUMNS} FROM forebay.deliveries WHERE tenant = $1 AND job_id = $2 OFFSET 0
    ) AS of_job WHERE type <> '' ORDER BY created_at, id LIMIT $3
) AS found ON true ORDER BY found.created_at, found.id
"""
_GET = f"""
SELECT rebuilding, found.* FROM {_NOW} LEFT JOIN LATERAL (
    SELECT {_COLUMNS}, body FROM forebay.deliveries WHERE tenant = $1 AND job_id = $2 AND id = $3 OFFSET 0
) AS found ON type <> ''
"""
# First the rows to look at, through the index of their order, then what fits of them.
_LIST = f"""
SELECT rebuilding, last.created_at, last.id, found.* FROM {_NOW}
LEFT JOIN LATERAL (
    SELECT created_at, id FROM forebay.deliveries
    WHERE tenant = $1 AND type <> '' AND created_at >= $4 AND (created_at, id) > ($5, $6)
    ORDER BY created_at, id OFFSET $3 - 1 LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT {_COLUMNS} FROM forebay.deliveries
        WHERE tenant = $1 AND type <> '' AND created_at >= $4 AND (created_at, id) > ($5, $6)
        ORDER BY created_at, id LIMIT $3
    ) AS looked_at WHERE true{{filters}} ORDER BY created_at, id LIMIT $2
) AS found ON true ORDER BY found.created_at, found.id
"""
_COUNT = f"""
WITH RECURSIVE {_RECEIVERS}
SELECT rebuilding,
    (SELECT count(*) FROM (SELECT FROM forebay.deliveries WHERE {_PENDING} LIMIT {COUNTED_MOST}) AS counted),
    (SELECT min(longest.next_at) FROM receivers CROSS JOIN LATERAL (
        SELECT next_at FROM forebay.deliveries WHERE {_PENDING} AND deliveries.receiver = receivers.receiver
        ORDER BY next_at LIMIT 1
    ) AS longest)
FROM {_NOW}
"""


class PostgresOutbox(Outbox):
    """The store's part of ports.outbox."""

    _database: Database

    async def claim(
        self,
        now: float,
        *,
        holder: str,
        until: float,
        limit: int,
        each: int,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> list[WebhookDelivery]:
        excluded = [to_text(receiver) for receiver in without]
        arguments = (now, to_text(holder), until, limit, each, excluded)
        if only is None:
            found = await self._claim(_CLAIM_ANY, *arguments)
        else:
            found = await self._claim(_CLAIM_ONLY, *arguments, [to_text(receiver) for receiver in only])
        return sorted(found, key=attrgetter("next_at", "id"))

    async def claim_late(self, now: float, *, holder: str, until: float, limit: int) -> list[WebhookDelivery]:
        found = await self._claim(_CLAIM_LATE, now, to_text(holder), until, limit)
        return sorted(found, key=attrgetter("gives_up_at"))

    async def _claim(self, sql: str, *arguments: Any) -> list[WebhookDelivery]:
        async with self._transaction() as connection:
            rows = await connection.fetch(sql, *arguments)
        return [from_row(row[:_WIDTH], row[_WIDTH]) for row in _seen(rows)]

    async def settle(self, holder: str, events: Sequence[DeliveryEvent]) -> None:
        keys = sorted({(event.tenant, event.job_id, event.delivery_id) for event in events})
        texts = [[to_text(key[place]) for key in keys] for place in range(3)]
        async with self._transaction() as connection:
            rows = await connection.fetch(_LOCK_HELD, to_text(holder), *texts)
            held = _found(rows)
            known = {(one.tenant, one.job_id, one.id): one for one in map(from_row, held)}
            after = dict(known)
            for event in events:
                key = (event.tenant, event.job_id, event.delivery_id)
                if key in after:
                    after[key] = apply_delivery(after[key], event)
            await update(connection, [one for key, one in after.items() if one is not known[key]])
            await connection.executemany(_RELEASE, [row[:3] for row in held])
        _refuse_while(rows[0][0])

    async def give_back(self, holder: str) -> None:
        async with self._transaction() as connection:
            rows = await connection.fetch(_LOCK_ALL_HELD, to_text(holder))
            await connection.executemany(_RELEASE, _found(rows))
        _refuse_while(rows[0][0])

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Nothing of these need survive a power cut of the database's host: what was tried stands in the log, and a
        lease that is forgotten is one that has run out."""
        async with self._database.borrow() as connection:
            await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off")
            yield connection
            await connection.execute("COMMIT")

    async def deliveries(self, tenant: str, job_id: str, limit: int) -> list[WebhookDelivery]:
        rows = await self._database.fetch(_OF_JOB, to_text(tenant), to_text(job_id), limit)
        return [from_row(row) for row in _seen(rows)]

    async def delivery(self, tenant: str, job_id: str, delivery_id: str) -> WebhookDelivery | None:
        rows = _seen(await self._database.fetch(_GET, to_text(tenant), to_text(job_id), to_text(delivery_id)))
        return from_row(rows[0][:_WIDTH], rows[0][_WIDTH]) if rows else None

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        at, delivery_id = query.after or (float("-inf"), "")
        arguments = [to_text(query.tenant), query.limit + 1, query.look, query.since, at, to_text(delivery_id)]
        filters = ""
        for name, value in (("endpoint", query.endpoint), ("status", query.status)):
            if value is not None:
                arguments.append(to_text(value))
                filters += f" AND {name} = ${len(arguments)}"
        rows = await self._database.fetch(_LIST.format(filters=filters), *arguments, timeout_s=SCAN_S)
        _refuse_while(rows[0][0])
        found = [from_row(row[3:]) for row in rows if row[3] is not None]
        if len(found) > query.limit:
            found = found[: query.limit]
            return DeliveryPage(found, (found[-1].created_at, found[-1].id))
        return DeliveryPage(found, None if rows[0][1] is None else (rows[0][1], from_text(rows[0][2])))

    async def outbox(self) -> OutboxCount:
        [(rebuilding, pending, due_at)] = await self._database.fetch(_COUNT, timeout_s=SCAN_S)
        _refuse_while(rebuilding)
        return OutboxCount(pending=pending, due_at=due_at)


def _seen(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    """What was found beside whether a rebuild is under way. Raises Unavailable (`rebuilding`)."""
    _refuse_while(rows[0][0])
    return _found(rows)


def _found(rows: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(row)[1:] for row in rows if row[1] is not None]


def _refuse_while(rebuilding: bool) -> None:
    if rebuilding:
        raise Unavailable("job states are being rebuilt from the log", code="rebuilding")
