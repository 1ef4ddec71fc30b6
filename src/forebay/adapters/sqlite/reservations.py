"""Keys that name jobs: the table `reservations`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
from msgspec import Struct

from forebay.core.fact import Fact
from forebay.core.reservation import KEEP_S, Reservation, newest_of
from forebay.ports.reservations import Claim

_COLUMNS = "tenant, key, job_id, fingerprint, accepted_at, published"
_INSERT = f"INSERT OR REPLACE INTO reservations ({_COLUMNS}, holder, leased_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_OF_KEY = f"SELECT {_COLUMNS}, holder, leased_until FROM reservations WHERE tenant = ? AND key = ?"
READ = f"SELECT {_COLUMNS} FROM reservations WHERE tenant = ? AND key = ?"

_PROJECT = f"""
INSERT INTO reservations ({_COLUMNS}, holder, leased_until) VALUES (?, ?, ?, ?, ?, 1, '', 0)
ON CONFLICT (tenant, key) DO UPDATE SET job_id = excluded.job_id, fingerprint = excluded.fingerprint,
    accepted_at = excluded.accepted_at, published = 1, holder = '', leased_until = 0
WHERE excluded.job_id = reservations.job_id OR excluded.accepted_at > reservations.accepted_at
"""


def read_published(count: int) -> str:
    """Of so many keys those that are."""
    return f"SELECT key FROM reservations WHERE tenant = ? AND published AND key IN ({', '.join('?' * count)})"


class Wish(Struct, frozen=True):
    """What `reserve` is called with, and when."""

    wanted: Reservation
    holder: str
    lease_s: float
    now: float


def reserve(connection: apsw.Connection, calls: Sequence[Wish]) -> list[Claim]:
    return [_reserve(connection, wish) for wish in calls]


def _reserve(connection: apsw.Connection, wish: Wish) -> Claim:
    wanted = wish.wanted
    rows: list[Any] = connection.execute(_OF_KEY, (wanted.tenant, wanted.key)).fetchall()
    standing, resumed = wanted, False
    if rows and (rows[0][4] >= wanted.accepted_at - KEEP_S or rows[0][2] == wanted.job_id):
        *columns, holder, leased_until = rows[0]
        standing, resumed = from_row(columns), True
        taken = leased_until > wish.now and holder != wish.holder
        if standing.published or taken or standing.fingerprint != wanted.fingerprint:
            return Claim(standing, held=False)
    connection.execute(_INSERT, (*_row(standing), int(standing.published), wish.holder, wish.now + wish.lease_s))
    return Claim(standing, held=True, resumed=resumed)


def mark_published(connection: apsw.Connection, calls: Sequence[Reservation]) -> Sequence[None]:
    for one in calls:
        connection.execute(
            "UPDATE reservations SET published = 1 WHERE tenant = ? AND key = ? AND job_id = ?",
            (one.tenant, one.key, one.job_id),
        )
    return [None] * len(calls)


def release(connection: apsw.Connection, calls: Sequence[tuple[Reservation, str]]) -> Sequence[None]:
    for one, holder in calls:
        connection.execute(
            "UPDATE reservations SET leased_until = 0 WHERE tenant = ? AND key = ? AND holder = ?",
            (one.tenant, one.key, holder),
        )
    return [None] * len(calls)


def withdraw(connection: apsw.Connection, calls: Sequence[tuple[Reservation, str]]) -> Sequence[None]:
    for one, holder in calls:
        connection.execute(
            "DELETE FROM reservations WHERE tenant = ? AND key = ? AND holder = ? AND NOT published",
            (one.tenant, one.key, holder),
        )
    return [None] * len(calls)


def forget_unpublished(connection: apsw.Connection, calls: Sequence[float]) -> Sequence[None]:
    connection.execute("DELETE FROM reservations WHERE NOT published AND accepted_at < ?", (max(calls),))
    return [None] * len(calls)


def project_reservations(connection: apsw.Connection, facts: Iterable[Fact]) -> None:
    """Those of the jobs in a part of the log."""
    for one in newest_of(facts):
        connection.execute(_PROJECT, _row(one))


def from_row(row: Sequence[Any]) -> Reservation:
    tenant, key, job_id, fingerprint, accepted_at, published = row
    return Reservation(
        tenant=tenant,
        key=key,
        job_id=job_id,
        fingerprint=fingerprint,
        accepted_at=accepted_at,
        published=bool(published),
    )


def _row(one: Reservation) -> tuple[str, str, str, str, float]:
    return one.tenant, one.key, one.job_id, one.fingerprint, one.accepted_at
