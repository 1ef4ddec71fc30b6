"""The outbox: who sends which delivery, and what became of it. The one writer thread decides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.deliveries import COLUMNS, from_row, update
from forebay.core.delivery import DeliveryEvent, WebhookDelivery, apply_delivery
from forebay.ports.outbox import DeliveryPage, DeliveryQuery, Outbox, OutboxCount

COUNTED_MOST = 10_000

_PENDING = "status = 'pending' AND type <> ''"
_WIDTH = len(COLUMNS.split(", "))

# From one receiver to the next through the index, however many of its rows lie between (a "loose index scan").
_RECEIVERS = f"""
WITH RECURSIVE receivers (receiver) AS (
    SELECT min(receiver) FROM deliveries WHERE {_PENDING}
    UNION ALL
    SELECT (SELECT min(receiver) FROM deliveries WHERE {_PENDING} AND receiver > receivers.receiver)
    FROM receivers WHERE receivers.receiver IS NOT NULL
)
"""
_DUE = f"""
SELECT rowid FROM deliveries AS due
WHERE {_PENDING} AND due.receiver = receivers.receiver AND next_at <= ?1 AND held_until <= ?1
ORDER BY next_at, id LIMIT ?2
"""
_CLAIM = """
{receivers} UPDATE deliveries SET holder = ?5, held_until = ?6 WHERE rowid IN (
    SELECT found.rowid FROM receivers CROSS JOIN deliveries AS found ON found.rowid IN ({due})
    WHERE receivers.receiver NOT IN (SELECT value FROM json_each(?3)) ORDER BY found.next_at, found.id LIMIT ?4
) RETURNING {columns}, body
"""
_NAMED = "WITH receivers (receiver) AS (SELECT value FROM json_each(?7))"
_CLAIM_ANY = _CLAIM.format(receivers=_RECEIVERS, due=_DUE, columns=COLUMNS)
_CLAIM_ONLY = _CLAIM.format(receivers=_NAMED, due=_DUE, columns=COLUMNS)
_CLAIM_LATE = f"""
UPDATE deliveries SET holder = ?3, held_until = ?4 WHERE rowid IN (
    SELECT rowid FROM deliveries WHERE {_PENDING} AND gives_up_at <= ?1 AND held_until <= ?1
    ORDER BY gives_up_at LIMIT ?2
) RETURNING {COLUMNS}, body
"""
_HELD = f"SELECT {COLUMNS} FROM deliveries WHERE tenant = ? AND job_id = ? AND id = ? AND holder = ?"
_RELEASE = "UPDATE deliveries SET holder = '', held_until = 0 WHERE tenant = ? AND job_id = ? AND id = ?"
_GIVE_BACK = "UPDATE deliveries SET holder = '', held_until = 0 WHERE holder = ? AND holder <> ''"
# By the key, and then put in order: through the index of that order it would pass over all others of the tenant.
_OF_JOB = f"""
SELECT {COLUMNS} FROM deliveries WHERE tenant = ? AND job_id = ? AND type <> '' ORDER BY +created_at, id LIMIT ?
"""
_GET = f"SELECT {COLUMNS}, body FROM deliveries WHERE tenant = ? AND job_id = ? AND id = ? AND type <> ''"
_COUNT = f"""
{_RECEIVERS} SELECT
    (SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE {_PENDING} LIMIT {COUNTED_MOST})),
    (SELECT min((
        SELECT min(next_at) FROM deliveries WHERE {_PENDING} AND deliveries.receiver = receivers.receiver
    )) FROM receivers)
"""

_encode = msgspec.json.Encoder().encode
_due_order = attrgetter("next_at", "id")


class _Claim(Struct, frozen=True):
    sql: str
    arguments: tuple[apsw.SQLiteValue, ...]


class SqliteOutbox(Outbox):
    """The store's part of ports.outbox."""

    _database: Database

    @abstractmethod
    def _refuse_while_rebuilding(self) -> None: ...

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
        excluded = _encode(list(without)).decode()
        arguments = (now, each, excluded, limit, holder, until)
        if only is None:
            found = await self._claim(_CLAIM_ANY, arguments)
        else:
            found = await self._claim(_CLAIM_ONLY, (*arguments, _encode(list(only)).decode()))
        return sorted(found, key=_due_order)

    async def claim_late(self, now: float, *, holder: str, until: float, limit: int) -> list[WebhookDelivery]:
        found = await self._claim(_CLAIM_LATE, (now, limit, holder, until))
        return sorted(found, key=attrgetter("gives_up_at"))

    async def _claim(self, sql: str, arguments: tuple[apsw.SQLiteValue, ...]) -> list[WebhookDelivery]:
        self._refuse_while_rebuilding()
        rows = await self._database.write(_claim, _Claim(sql, arguments), durable=False)
        return [from_row(row[:_WIDTH], row[_WIDTH]) for row in rows]

    async def settle(self, holder: str, events: Sequence[DeliveryEvent]) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(_settle, (holder, events), durable=False)

    async def give_back(self, holder: str) -> None:
        self._refuse_while_rebuilding()
        await self._database.write(_give_back, holder, durable=False)

    async def deliveries(self, tenant: str, job_id: str, limit: int) -> list[WebhookDelivery]:
        self._refuse_while_rebuilding()
        return [from_row(row) for row in self._database.read(_OF_JOB, (tenant, job_id, limit))]

    async def delivery(self, tenant: str, job_id: str, delivery_id: str) -> WebhookDelivery | None:
        self._refuse_while_rebuilding()
        for row in self._database.read(_GET, (tenant, job_id, delivery_id)):
            return from_row(row[:_WIDTH], row[_WIDTH])
        return None

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        self._refuse_while_rebuilding()
        behind = " AND (created_at, id) > (?, ?)" if query.after else ""
        ranged = f"FROM deliveries WHERE tenant = ? AND type <> '' AND created_at >= ?{behind}"
        in_range = (query.tenant, query.since, *(query.after or ()))
        # The last row to look at, by the index alone; then what fits of the rows up to it.
        last = await self._database.scan(
            f"SELECT created_at, id {ranged} ORDER BY created_at, id LIMIT 1 OFFSET ?", (*in_range, query.look - 1)
        )
        filters = [("endpoint = ?", query.endpoint), ("status = ?", query.status)]
        conditions = [sql for sql, value in filters if value is not None]
        wanted = [value for _, value in filters if value is not None]
        if last:
            conditions.append("(created_at, id) <= (?, ?)")
            wanted += last[0]
        where = "".join(f" AND {condition}" for condition in conditions)
        rows = await self._database.scan(
            f"SELECT {COLUMNS} {ranged}{where} ORDER BY created_at, id LIMIT ?", (*in_range, *wanted, query.limit + 1)
        )
        found = [from_row(row) for row in rows[: query.limit]]
        if len(rows) > query.limit:
            return DeliveryPage(found, (found[-1].created_at, found[-1].id))
        return DeliveryPage(found, tuple(last[0]) if last else None)

    async def outbox(self) -> OutboxCount:
        self._refuse_while_rebuilding()
        [(pending, due_at)] = await self._database.scan(_COUNT, ())
        return OutboxCount(pending=pending, due_at=due_at)


def _claim(connection: apsw.Connection, calls: Sequence[_Claim]) -> list[list[Any]]:
    return [connection.execute(call.sql, call.arguments).fetchall() for call in calls]


def _settle(connection: apsw.Connection, calls: Sequence[tuple[str, Sequence[DeliveryEvent]]]) -> Sequence[None]:
    for holder, events in calls:
        for event in events:
            key = (event.tenant, event.job_id, event.delivery_id)
            for row in connection.execute(_HELD, (*key, holder)).fetchall():
                known = from_row(row)
                after = apply_delivery(known, event)
                if after is not known:
                    update(connection, after)
                connection.execute(_RELEASE, key)
    return [None] * len(calls)


def _give_back(connection: apsw.Connection, calls: Sequence[str]) -> Sequence[None]:
    for holder in calls:
        connection.execute(_GIVE_BACK, (holder,))
    return [None] * len(calls)
