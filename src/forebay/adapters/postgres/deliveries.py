"""Deliveries as rows, and what facts change in them: the tables `deliveries` and `held_outputs`.

Whoever writes deliveries locks them first, in the order of their keys: so projectors and dispatchers wait for each
other and never in a circle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from forebay.adapters.postgres.rows import Row
from forebay.adapters.postgres.schema import SCHEMA
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.core.delivery import DeliveryStatus, Try, WebhookDelivery
from forebay.core.outbox import HeldOutput, OutboxRows
from forebay.core.partials import Key

if TYPE_CHECKING:
    from forebay.adapters.postgres.database import Connection

COLUMNS = (
    "tenant",
    "job_id",
    "id",
    "type",
    "endpoint",
    "url",
    "created_at",
    "status",
    "tried",
    "tries",
    "in_turn",
    "since",
    "next_at",
    "reason",
)
"""What is read without its body, which comes behind them where it is read."""

_CHANGING = ("status", "tried", "tries", "in_turn", "since", "next_at", "reason", "gives_up_at")
_WRITTEN = (*COLUMNS, "receiver", "gives_up_at", "body")
_HELD_COLUMNS = "tenant, job_id, attempt, first, at, chunks"

_STUB = {
    "type": "''",
    "endpoint": "''",
    "url": "''",
    "created_at": "0",
    "status": "'pending'",
    "tried": "0",
    "in_turn": "0",
    "since": "0",
    "reason": "''",
    "receiver": "''",
    "gives_up_at": "0",
    "body": "''",
}
_INSERT_STUBS = f"""
INSERT INTO forebay.deliveries (tenant, job_id, id, {", ".join(_STUB)})
SELECT tenant, job_id, id, {", ".join(_STUB.values())}
FROM unnest($1::text[], $2::text[], $3::text[]) AS new (tenant, job_id, id)
ORDER BY tenant, job_id, id ON CONFLICT DO NOTHING
"""

# Some by their key, and all of some jobs.
_LOCK = f"""
SELECT delivery.* FROM (
    SELECT tenant COLLATE "C" AS tenant, job_id COLLATE "C" AS job_id, id COLLATE "C" AS id
    FROM unnest($1::text[], $2::text[], $3::text[]) AS named (tenant, job_id, id)
    UNION
    SELECT of_job.* FROM unnest($4::text[], $5::text[]) AS gone (tenant, job_id) CROSS JOIN LATERAL (
        SELECT tenant, job_id, id FROM forebay.deliveries
        WHERE deliveries.tenant = gone.tenant AND deliveries.job_id = gone.job_id OFFSET 0
    ) AS of_job
    ORDER BY tenant, job_id, id
) AS wanted CROSS JOIN LATERAL (
    SELECT {", ".join(COLUMNS)} FROM forebay.deliveries
    WHERE deliveries.tenant = wanted.tenant AND deliveries.job_id = wanted.job_id AND deliveries.id = wanted.id
    FOR UPDATE
) AS delivery
"""


def _by_key(columns: Sequence[str]) -> str:
    assignments = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, start=4))
    return f"UPDATE forebay.deliveries SET {assignments} WHERE tenant = $1 AND job_id = $2 AND id = $3"


_UPDATE = _by_key(_CHANGING)
_FILL = _by_key(_WRITTEN[3:])
_DELETE = "DELETE FROM forebay.deliveries WHERE tenant = $1 AND job_id = $2 AND id = $3"
_HOLD = f"""
INSERT INTO forebay.held_outputs ({_HELD_COLUMNS})
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::double precision[], $6::bytea[])
ON CONFLICT (tenant, job_id, attempt, first) DO UPDATE SET at = excluded.at, chunks = excluded.chunks
"""
_TAKE_HELD = f"""
DELETE FROM forebay.held_outputs USING unnest($1::text[], $2::text[]) AS late (tenant, id)
WHERE held_outputs.tenant = late.tenant AND job_id = late.id
RETURNING {", ".join(f"held_outputs.{name}" for name in _HELD_COLUMNS.split(", "))}
"""

_encode = msgspec.json.Encoder().encode
_tries = msgspec.json.Decoder(tuple[Try, ...]).decode


async def project_deliveries(
    connection: Connection, told: OutboxRows, gone: Iterable[Key], *, may_be_new: bool
) -> None:
    """With `may_be_new` a row that is not there is inserted, which may meet another's; else stubs are inserted first,
    which waits for others."""
    if held := [(to_text(one.tenant), to_text(one.job_id), *_of_held(one)) for one in told.held]:
        await connection.execute(_HOLD, *_arrays(held, 6))
    named = [_texts(key) for key in told.named]
    deleted = [_texts(key) for key in told.deleted]
    if not named and not deleted:
        return
    if not may_be_new:
        await connection.execute(_INSERT_STUBS, *_arrays(named, 3))
    rows = await connection.fetch(_LOCK, *_arrays(named, 3), *_arrays(deleted, 2))
    known = {(one.tenant, one.job_id, one.id): one for one in [from_row(tuple(row)) for row in rows]}
    new: list[Row] = []
    filled: list[Row] = []
    updated: list[WebhookDelivery] = []
    ended: list[Row] = []
    for key, one in sorted(told.changes(known, gone).items()):
        if one is None:
            ended.append(_texts(key))
        elif key not in known:
            new.append(_to_row(one))
        elif known[key].type != one.type:
            filled.append(_to_row(one))
        else:
            updated.append(one)
    if new:
        await connection.copy_records_to_table("deliveries", schema_name=SCHEMA, columns=_WRITTEN, records=new)
    if filled:
        await connection.executemany(_FILL, filled)
    await update(connection, updated)
    if ended:
        await connection.executemany(_DELETE, ended)


async def update(connection: Connection, deliveries: Sequence[WebhookDelivery]) -> None:
    """Of rows that are there and locked: what became of them."""
    if deliveries:
        rows = [dict(zip(_WRITTEN, _to_row(one), strict=True)) for one in deliveries]
        await connection.executemany(_UPDATE, [[row[name] for name in (*_WRITTEN[:3], *_CHANGING)] for row in rows])


async def take_held(connection: Connection, keys: Collection[Key]) -> list[HeldOutput]:
    """What was held of these jobs, and is no longer. Whoever projects has locked them."""
    if not keys:
        return []
    found: list[HeldOutput] = []
    for row in await connection.fetch(_TAKE_HELD, *_arrays([_texts(key) for key in keys], 2)):
        tenant, job_id, attempt, first, at, chunks = row
        key = {"tenant": from_text(tenant), "job_id": from_text(job_id)}
        found.append(HeldOutput(**key, attempt=attempt, first=first, at=at, chunks=chunks))
    return found


def from_row(row: Sequence[Any], body: bytes = b"") -> WebhookDelivery:
    """`row` has COLUMNS."""
    tenant, job_id, delivery_id, kind, endpoint, url, created_at, status, tried, tries, *rest = row
    in_turn, since, next_at, reason = rest
    return WebhookDelivery(
        tenant=from_text(tenant),
        job_id=from_text(job_id),
        id=from_text(delivery_id),
        type=from_text(kind),
        endpoint=from_text(endpoint),
        url=from_text(url),
        created_at=created_at,
        body=body,
        status=DeliveryStatus(status),
        tried=tried,
        tries=() if tries is None else _tries(tries),
        in_turn=in_turn,
        since=since,
        next_at=next_at,
        reason=from_text(reason),
    )


def _to_row(one: WebhookDelivery) -> Row:
    return (
        to_text(one.tenant),
        to_text(one.job_id),
        to_text(one.id),
        to_text(one.type),
        to_text(one.endpoint),
        to_text(one.url),
        one.created_at,
        one.status.value,
        one.tried,
        _encode(one.tries) if one.tries else None,
        one.in_turn,
        one.since,
        one.next_at,
        to_text(one.reason),
        to_text(one.receiver),
        one.gives_up_at,
        one.body,
    )


def _of_held(one: HeldOutput) -> Row:
    return one.attempt, one.first, one.at, one.chunks


def _texts(key: Sequence[str]) -> Row:
    return tuple(map(to_text, key))


def _arrays(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[place] for row in rows] for place in range(width)]
