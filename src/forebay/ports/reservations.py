"""Keys that name jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from msgspec import Struct

from forebay.core.reservation import Reservation


class Claim(Struct, frozen=True):
    """The reservation that stands. `held`: whoever asked is to publish it, and nobody else until the lease ends.
    `resumed`: it was held before, so that its job may have been published already."""

    reservation: Reservation
    held: bool
    resumed: bool = False


class Reservations(ABC):
    """Of a published job the reservation is derived: a rebuild makes it anew from the job's request. Meanwhile all of
    these raise Unavailable with the code `rebuilding`."""

    @abstractmethod
    async def reserve(self, wanted: Reservation, *, holder: str, lease_s: float) -> Claim:
        """Reserve `wanted.key`, durably.

        It is held by `holder` if there was none younger than KEEP_S, or if it is the same request's, unpublished, and
        the lease of whoever held it has ended. One that names this very job does not grow old: under an id of the
        caller's choice there is never another. Raises Unavailable.
        """

    @abstractmethod
    async def published(self, reservation: Reservation) -> None:
        """Its job is durable. Harmless when repeated, or when another says it. Raises Unavailable."""

    @abstractmethod
    async def release(self, reservation: Reservation, *, holder: str) -> None:
        """Nobody knows whether it was published: the next who asks for the same takes it over. Does nothing if `holder`
        holds it no more. Raises Unavailable."""

    @abstractmethod
    async def withdraw(self, reservation: Reservation, *, holder: str) -> None:
        """Nothing was ever published under it: the key is as good as new. Does nothing if `holder` holds it no more, or
        if it is published. Raises Unavailable."""

    @abstractmethod
    async def reserved(self, tenant: str, key: str) -> Reservation | None:
        """What stands for this key, however old. Raises Unavailable."""

    @abstractmethod
    async def published_of(self, tenant: str, keys: Sequence[str]) -> frozenset[str]:
        """Those of these keys whose job is durable. Raises Unavailable."""
