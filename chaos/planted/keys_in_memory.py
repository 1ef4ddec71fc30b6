"""Each API keeps its keys to itself."""

from __future__ import annotations

from forebay.adapters.memory import MemoryStore
from forebay.adapters.postgres import PostgresStore
from forebay.core.reservation import Reservation
from forebay.ports.reservations import Claim

_own = MemoryStore()


async def reserve(self: PostgresStore, wanted: Reservation, *, holder: str, lease_s: float) -> Claim:
    return await _own.reserve(wanted, holder=holder, lease_s=lease_s)


async def published(self: PostgresStore, reservation: Reservation) -> None:
    await _own.published(reservation)


def plant() -> None:
    PostgresStore.reserve = reserve  # type: ignore[method-assign]  # the bug stands in for it
    PostgresStore.published = published  # type: ignore[method-assign]
