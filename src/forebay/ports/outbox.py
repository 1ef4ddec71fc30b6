"""The outbox: deliveries that wait to be sent, and what became of them. Derived, apart from who holds which."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from msgspec import Struct

from forebay.core.delivery import DeliveryEvent, DeliveryStatus, WebhookDelivery

COUNTED_MOST = 10_000
"""Pending deliveries are counted up to this: then somebody must look anyway, and the count takes milliseconds."""

DeliveryPlace = tuple[float, str]
"""Where a delivery stands among those of its tenant: when what it tells of was, and its id."""


class DeliveryQuery(Struct, frozen=True, kw_only=True):
    """Deliveries of a tenant, the oldest first. What is None asks for nothing. `since`: those that tell of what was
    then or later. `after`: those that stand behind that place. `limit`: at most so many are given; `look`: at most so
    many are looked at."""

    tenant: str
    endpoint: str | None = None
    status: DeliveryStatus | None = None
    since: float = 0.0
    after: DeliveryPlace | None = None
    limit: int
    look: int


class DeliveryPage(Struct, frozen=True):
    """`next`: behind which place there may be more; None at the end."""

    deliveries: list[WebhookDelivery]
    next: DeliveryPlace | None = None


class OutboxCount(Struct, frozen=True, kw_only=True):
    """Over all tenants. `due_at`: since when the longest due one waits, None where none is pending."""

    pending: int
    due_at: float | None = None


class Outbox(ABC):
    """A delivery is in it as soon as a reader can see the state that it tells of, and not before. Times are the log's.
    All of these raise Unavailable, with the code `rebuilding` while a rebuild is under way: until its end nobody knows
    what was sent."""

    @abstractmethod
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
        """Pending deliveries that are due by `now` and that nobody holds; `holder`, the name of a process, holds them
        from now on, until `until` by the same clock. At most `limit`, of one receiver at most `each`, the longest due
        first; only of these receivers, if `only` is not None, and of those in `without` none. However many are due for
        others or wait, it takes some milliseconds."""

    @abstractmethod
    async def claim_late(self, now: float, *, holder: str, until: float, limit: int) -> list[WebhookDelivery]:
        """Pending deliveries that have waited too long (`WebhookDelivery.gives_up_at`), whoever receives them; held as
        those of `claim`."""

    @abstractmethod
    async def settle(self, holder: str, events: Sequence[DeliveryEvent]) -> None:
        """What these tries came to, which stands in the log already (`core.delivery.apply_delivery`), of deliveries
        that `holder` claimed; it holds them no longer. One that it does not hold any more is left to the projector."""

    @abstractmethod
    async def give_back(self, holder: str) -> None:
        """`holder` holds nothing any more, and what it held is due as it was."""

    @abstractmethod
    async def deliveries(self, tenant: str, job_id: str, limit: int) -> list[WebhookDelivery]:
        """Of a job or batch, in the order of what they tell, without their bodies."""

    @abstractmethod
    async def delivery(self, tenant: str, job_id: str, delivery_id: str) -> WebhookDelivery | None:
        """With its body."""

    @abstractmethod
    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """Those that fit, without their bodies."""

    @abstractmethod
    async def outbox(self) -> OutboxCount:
        """How many wait, COUNTED_MOST at most."""
