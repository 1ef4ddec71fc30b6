"""Deliveries as rows, and what facts change in them: the tables `deliveries` and `held_outputs`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any

import apsw
import msgspec

from forebay.adapters.sqlite.statements import parts, values, write_rows
from forebay.core.delivery import DeliveryStatus, Try, WebhookDelivery
from forebay.core.outbox import DeliveryKey, HeldOutput, OutboxRows
from forebay.core.partials import Key

COLUMNS = "tenant, job_id, id, type, endpoint, url, created_at, status, tried, tries, in_turn, since, next_at, reason"
"""What is read without its body, which comes behind them where it is read."""

_COMPUTED = "receiver, gives_up_at, body"
_CHANGING = ("status", "tried", "tries", "in_turn", "since", "next_at", "reason", "gives_up_at")
_OF_MADE = ("type", "endpoint", "url", "created_at", "receiver", "body")
_HELD_COLUMNS = "tenant, job_id, attempt, first, at, chunks"

_INSERT = f"INSERT INTO deliveries ({COLUMNS}, {_COMPUTED}) VALUES"
_UPSERT = "ON CONFLICT (tenant, job_id, id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in (*_OF_MADE, *_CHANGING)
)
_BY_KEY = "WHERE tenant = ? AND job_id = ? AND id = ?"
_CHANGED = ", ".join(f"{name} = ?" for name in _CHANGING)
_UPDATE = f"UPDATE deliveries SET {', '.join(f'{name} = ?' for name in _CHANGING)} {_BY_KEY}"
_NEW = f"WITH new (tenant, job_id, id, {', '.join(_CHANGING)}) AS (VALUES"
_SETTLE = f""") UPDATE deliveries
SET {", ".join(f"{name} = new.{name}" for name in _CHANGING)}, holder = '', held_until = 0 FROM new
WHERE deliveries.tenant = new.tenant AND deliveries.job_id = new.job_id AND deliveries.id = new.id"""
_DELETE = f"DELETE FROM deliveries {_BY_KEY}"

_encode = msgspec.json.Encoder().encode
_tries = msgspec.json.Decoder(tuple[Try, ...]).decode


def project_deliveries(connection: apsw.Connection, told: OutboxRows, gone: Iterable[Key]) -> None:
    write_rows(
        connection,
        f"INSERT OR REPLACE INTO held_outputs ({_HELD_COLUMNS}) VALUES",
        [(one.tenant, one.job_id, one.attempt, one.first, one.at, one.chunks) for one in told.held],
    )
    known = _load(connection, "(tenant, job_id, id)", 3, told.named)
    known.update(_load(connection, "(tenant, job_id)", 2, told.deleted))
    made: list[WebhookDelivery] = []
    for key, delivery in told.changes(known, gone).items():
        if delivery is None:
            connection.execute(_DELETE, key)
        elif key not in known or known[key].type != delivery.type:
            made.append(delivery)
        else:
            update(connection, delivery)
    write_rows(connection, _INSERT, [_to_row(one) for one in made], _UPSERT)


def update(connection: apsw.Connection, delivery: WebhookDelivery) -> None:
    """Of a row that is there: what became of it."""
    connection.execute(_UPDATE, (*_changed(delivery), delivery.tenant, delivery.job_id, delivery.id))


def settle(connection: apsw.Connection, deliveries: Sequence[WebhookDelivery]) -> None:
    """As `update`; and nobody holds them any more."""
    write_rows(connection, _NEW, [(one.tenant, one.job_id, one.id, *_changed(one)) for one in deliveries], _SETTLE)


def _changed(delivery: WebhookDelivery) -> tuple[Any, ...]:
    return (
        delivery.status.value,
        delivery.tried,
        _to_tries(delivery),
        delivery.in_turn,
        delivery.since,
        delivery.next_at,
        delivery.reason,
        delivery.gives_up_at,
    )


def take_held(connection: apsw.Connection, keys: Collection[Key]) -> list[HeldOutput]:
    """What was held of these jobs, and is no longer."""
    found: list[HeldOutput] = []
    for part in parts(list(keys)):
        sql = f"DELETE FROM held_outputs WHERE (tenant, job_id) IN (VALUES {values(2, len(part))})"
        rows: Iterable[Any] = connection.execute(f"{sql} RETURNING {_HELD_COLUMNS}", [*chain(*part)])
        for tenant, job_id, attempt, first, at, chunks in rows:
            held = HeldOutput(tenant=tenant, job_id=job_id, attempt=attempt, first=first, at=at, chunks=chunks)
            found.append(held)
    return found


def from_row(row: Sequence[Any], body: bytes = b"") -> WebhookDelivery:
    """`row` has COLUMNS."""
    tenant, job_id, delivery_id, kind, endpoint, url, created_at, status, tried, tries, *rest = row
    in_turn, since, next_at, reason = rest
    return WebhookDelivery(
        tenant=tenant,
        job_id=job_id,
        id=delivery_id,
        type=kind,
        endpoint=endpoint,
        url=url,
        created_at=created_at,
        body=body,
        status=DeliveryStatus(status),
        tried=tried,
        tries=() if tries is None else _tries(tries),
        in_turn=in_turn,
        since=since,
        next_at=next_at,
        reason=reason,
    )


def _to_row(one: WebhookDelivery) -> tuple[Any, ...]:
    return (
        one.tenant,
        one.job_id,
        one.id,
        one.type,
        one.endpoint,
        one.url,
        one.created_at,
        one.status.value,
        one.tried,
        _to_tries(one),
        one.in_turn,
        one.since,
        one.next_at,
        one.reason,
        one.receiver,
        one.gives_up_at,
        one.body,
    )


def _to_tries(one: WebhookDelivery) -> bytes | None:
    return _encode(one.tries) if one.tries else None


def load(
    connection: apsw.Connection, keys: Iterable[DeliveryKey], *, holder: str
) -> dict[DeliveryKey, WebhookDelivery]:
    """Those of these rows that `holder` holds."""
    return _load(connection, "holder = ? AND (tenant, job_id, id)", 3, keys, (holder,))


def _load(
    connection: apsw.Connection, by: str, width: int, keys: Iterable[Sequence[str]], first: tuple[str, ...] = ()
) -> dict[DeliveryKey, WebhookDelivery]:
    found: dict[DeliveryKey, WebhookDelivery] = {}
    for part in parts(list(keys)):
        for row in connection.execute(_load_sql(by, width, len(part)), [*first, *chain(*part)]):
            one = from_row(row)
            found[one.tenant, one.job_id, one.id] = one
    return found


def _load_sql(by: str, width: int, count: int) -> str:
    return f"SELECT {COLUMNS} FROM deliveries WHERE {by} IN (VALUES {values(width, count)})"
