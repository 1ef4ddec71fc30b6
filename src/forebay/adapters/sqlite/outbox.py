"""The outbox: who sends which delivery, and what became of it. The one writer thread decides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from operator import attrgetter

import apsw
import msgspec
from msgspec import Struct

from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.deliveries import COLUMNS, from_row, load, settle
from forebay.core.delivery import DeliveryEvent, WebhookDelivery, apply_delivery
from forebay.ports.outbox import COUNTED_MOST, DeliveryPage, DeliveryQuery, Outbox, OutboxCount

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
_FIND = """
{receivers} SELECT json_group_array(found) FROM (
    SELECT found.rowid AS found FROM receivers CROSS JOIN deliveries AS found ON found.rowid IN ({due})
    WHERE receivers.receiver NOT IN (SELECT value FROM json_each(?3)) ORDER BY found.next_at, found.id LIMIT ?4
)
"""
_NAMED = "WITH receivers (receiver) AS (SELECT value FROM json_each(?5))"
_FIND_ANY = _FIND.format(receivers=_RECEIVERS, due=_DUE)
_FIND_NAMED = _FIND.format(receivers=_NAMED, due=_DUE)
_FIND_LATE = f"""
SELECT json_group_array(rowid) FROM (
    SELECT rowid FROM deliveries WHERE {_PENDING} AND gives_up_at <= ?1 AND held_until <= ?1
    ORDER BY gives_up_at LIMIT ?2
)
"""
_HOLD = "UPDATE deliveries SET holder = ?, held_until = ? WHERE rowid IN (SELECT value FROM json_each(?))"
_HELD = f"SELECT {COLUMNS}, body FROM deliveries WHERE rowid IN (SELECT value FROM json_each(?))"
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
    find: str
    arguments: tuple[apsw.SQLiteValue, ...]
    holder: str
    until: float


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
        arguments = (now, each, excluded, limit)
        if only is None:
            claim = _Claim(_FIND_ANY, arguments, holder, until)
        else:
            claim = _Claim(_FIND_NAMED, (*arguments, _encode(list(only)).decode()), holder, until)
        return sorted(await self._claim(claim), key=_due_order)

    async def claim_late(self, now: float, *, holder: str, until: float, limit: int) -> list[WebhookDelivery]:
        found = await self._claim(_Claim(_FIND_LATE, (now, limit), holder, until))
        return sorted(found, key=attrgetter("gives_up_at"))

    async def _claim(self, claim: _Claim) -> list[WebhookDelivery]:
        """The rows are read here and not by the writer, which gives up the interpreter's lock for each of them."""
        self._refuse_while_rebuilding()
        numbers = await self._database.write(_claim, claim, durable=False)
        rows = self._database.read(_HELD, (numbers,))
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


def _claim(connection: apsw.Connection, calls: Sequence[_Claim]) -> list[str]:
    """The numbers of the rows, as JSON."""
    return [_claim_one(connection, call) for call in calls]


def _claim_one(connection: apsw.Connection, call: _Claim) -> str:
    [(numbers,)] = connection.execute(call.find, call.arguments).fetchall()
    connection.execute(_HOLD, (call.holder, call.until, numbers))
    return str(numbers)


def _settle(connection: apsw.Connection, calls: Sequence[tuple[str, Sequence[DeliveryEvent]]]) -> Sequence[None]:
    for holder, events in calls:
        keys = dict.fromkeys((event.tenant, event.job_id, event.delivery_id) for event in events)
        held = load(connection, keys, holder=holder)
        for event in events:
            key = (event.tenant, event.job_id, event.delivery_id)
            if key in held:
                held[key] = apply_delivery(held[key], event)
        settle(connection, list(held.values()))
    return [None] * len(calls)


def _give_back(connection: apsw.Connection, calls: Sequence[str]) -> Sequence[None]:
    for holder in calls:
        connection.execute(_GIVE_BACK, (holder,))
    return [None] * len(calls)
