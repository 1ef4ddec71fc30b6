"""Keys that name jobs: the table `reservations`. Leases end by the server's clock, which all processes share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from forebay.adapters.postgres.database import Database
from forebay.adapters.postgres.texts import from_text, to_text
from forebay.core.errors import Unavailable
from forebay.core.fact import Fact
from forebay.core.reservation import KEEP_S, Reservation, newest_of
from forebay.ports.reservations import Claim

if TYPE_CHECKING:
    from forebay.adapters.postgres.database import Connection

_COLUMNS = "tenant, key, job_id, fingerprint, accepted_at, published"

# One statement decides, so that of several copies at once one holds it. While a rebuild is under way there is no row to
# insert; a rebuild that begins meanwhile has locked the table before this looks.
_RESERVE = f"""
INSERT INTO forebay.reservations AS known ({_COLUMNS}, holder, leased_until)
SELECT $1, $2, $3, $4, $5::double precision, false, $6, clock_timestamp() + $7 * interval '1 second'
WHERE NOT EXISTS (SELECT FROM forebay.rebuilding)
ON CONFLICT (tenant, key) DO UPDATE SET
    holder = excluded.holder, leased_until = excluded.leased_until
WHERE NOT known.published AND known.fingerprint = excluded.fingerprint
    AND (known.accepted_at >= $8 OR known.job_id = excluded.job_id)
    AND (known.leased_until <= clock_timestamp() OR known.holder = excluded.holder)
RETURNING {_COLUMNS}, xmax <> 0
"""
"""The last column: whether the row was there before, since of one just inserted xmax is 0."""

_FORGET_OLD = """
DELETE FROM forebay.reservations WHERE tenant = $1 AND key = $2 AND job_id <> $3 AND accepted_at < $4
"""
_READ = f"""
SELECT rebuilding, {_COLUMNS} FROM (SELECT EXISTS (SELECT FROM forebay.rebuilding) AS rebuilding) AS now
LEFT JOIN forebay.reservations ON tenant = $1 AND key = $2
"""
_PUBLISHED_OF = """
SELECT rebuilding, key FROM (SELECT EXISTS (SELECT FROM forebay.rebuilding) AS rebuilding) AS now
LEFT JOIN forebay.reservations ON tenant = $1 AND key = ANY ($2::text[]) AND published
"""
_PUBLISHED = "UPDATE forebay.reservations SET published = true WHERE tenant = $1 AND key = $2 AND job_id = $3"
_RELEASE = """
UPDATE forebay.reservations SET leased_until = '-infinity' WHERE tenant = $1 AND key = $2 AND holder = $3
"""
_WITHDRAW = """
DELETE FROM forebay.reservations WHERE tenant = $1 AND key = $2 AND holder = $3 AND NOT published
"""
_PROJECT = f"""
INSERT INTO forebay.reservations ({_COLUMNS}, holder, leased_until)
SELECT *, true, '', '-infinity' FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::double precision[])
ON CONFLICT (tenant, key) DO UPDATE SET job_id = excluded.job_id, fingerprint = excluded.fingerprint,
    accepted_at = excluded.accepted_at, published = true, holder = '', leased_until = '-infinity'
WHERE excluded.job_id = reservations.job_id OR excluded.accepted_at > reservations.accepted_at
"""
_FORGET_UNPUBLISHED = "DELETE FROM forebay.reservations WHERE NOT published AND accepted_at < $1"
FORGET_PUBLISHED = "LOCK TABLE forebay.reservations; DELETE FROM forebay.reservations WHERE published"
"""For a rebuild: the others stand for what may not be in the log."""

TRIES = 3


class PostgresReservations:
    """The store's part of ports.reservations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, wanted: Reservation, holder: str, lease_s: float) -> Claim:
        columns, old = _row(wanted), wanted.accepted_at - KEEP_S
        for _ in range(TRIES):
            rows = await self._database.fetch(_RESERVE, *columns, holder, lease_s, old)
            if rows:
                *found, resumed = tuple(rows[0])
                return Claim(_reservation(found), held=True, resumed=resumed)
            known = await self.read(wanted.tenant, wanted.key)
            if known is None:
                continue
            if known.accepted_at >= old or known.job_id == wanted.job_id:
                return Claim(known, held=False)
            await self._database.fetch(_FORGET_OLD, *columns[:3], old)
        raise Unavailable(f"{self._database.where}: a reservation came and went", retry_after_s=0.5)

    async def published(self, one: Reservation) -> None:
        await self._database.fetch(_PUBLISHED, to_text(one.tenant), to_text(one.key), to_text(one.job_id))

    async def release(self, one: Reservation, holder: str) -> None:
        await self._database.fetch(_RELEASE, to_text(one.tenant), to_text(one.key), holder)

    async def withdraw(self, one: Reservation, holder: str) -> None:
        await self._database.fetch(_WITHDRAW, to_text(one.tenant), to_text(one.key), holder)

    async def forget_unpublished(self, before: float) -> None:
        await self._database.fetch(_FORGET_UNPUBLISHED, before)

    async def read(self, tenant: str, key: str) -> Reservation | None:
        """Raises Unavailable (`rebuilding`), too."""
        [row] = await self._database.fetch(_READ, to_text(tenant), to_text(key))
        _refuse_while(row[0])
        return None if row[1] is None else _reservation(tuple(row)[1:])

    async def published_of(self, tenant: str, keys: Sequence[str]) -> frozenset[str]:
        rows = await self._database.fetch(_PUBLISHED_OF, to_text(tenant), [to_text(key) for key in keys])
        _refuse_while(rows[0][0])
        return frozenset(from_text(key) for _, key in rows if key is not None)


def _refuse_while(rebuilding: bool) -> None:
    if rebuilding:
        raise Unavailable("job states are being rebuilt from the log", code="rebuilding")


async def project_reservations(connection: Connection, facts: Iterable[Fact]) -> None:
    """Those of the jobs in a part of the log, in one order."""
    if rows := [_row(one) for one in newest_of(facts)]:
        await connection.execute(_PROJECT, *([row[place] for row in rows] for place in range(5)))


def _row(one: Reservation) -> tuple[Any, ...]:
    return to_text(one.tenant), to_text(one.key), to_text(one.job_id), to_text(one.fingerprint), one.accepted_at


def _reservation(row: Sequence[Any]) -> Reservation:
    tenant, key, job_id, fingerprint, accepted_at, published = row
    return Reservation(
        tenant=from_text(tenant),
        key=from_text(key),
        job_id=from_text(job_id),
        fingerprint=from_text(fingerprint),
        accepted_at=accepted_at,
        published=published,
    )
