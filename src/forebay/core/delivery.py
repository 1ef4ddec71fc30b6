"""A webhook delivery: one message to one receiver, and what became of it. Pure.

    pending ── tried ──▶ delivered | parked ── asked ──▶ pending     (parked without a try, too)
       ▲         │
       └─ later ─┘

Each try is a fact in the event log, under the job (or batch) that it tells of, and so is that somebody asked for
another one: so deliveries are rebuilt with all that happened to them, and nobody is called again.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from forebay.core.event import Count
from forebay.core.webhook import WebhookTarget, host_and_port

TRIES_SHOWN = 50
"""Of more tries the oldest are forgotten, so that a row stays small whoever asks for how many."""

GIVES_UP_AFTER_S = 4 * 86_400.0
"""A delivery that was not tried often enough by then, since its receiver never had a turn to give, is parked too. The
ten tries take little more than three days."""

MESSAGE_CHARS = 300


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    PARKED = "parked"  # nobody tries any more until somebody asks


class Try(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One HTTP request. `status` is that of the answer, None where there was none; `code` says what went wrong, "" if
    nothing did."""

    number: int
    at: float
    status: int | None = None
    latency_s: float = 0.0
    code: str = ""
    message: str = ""


class DeliveryEventKind(StrEnum):
    TRIED = "tried"
    PARKED = "parked"  # without a try: there is nobody to call, or it has waited for too long
    ASKED = "asked"  # for another try, and as many as a new delivery has


class DeliveryEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact about a delivery; `job_id` is the job or batch that it tells of. Of a try: what came of it, the `outcome`
    for the delivery, and when the next is due if that is `pending`. `code`: what went wrong, or why it is parked."""

    tenant: str
    job_id: str
    delivery_id: str
    kind: DeliveryEventKind
    at: float
    number: Count = 0
    status: Annotated[int, Meta(ge=0, le=999)] | None = None
    latency_s: float = 0.0
    code: str = ""
    message: Annotated[str, Meta(max_length=MESSAGE_CHARS)] = ""
    outcome: DeliveryStatus = DeliveryStatus.PENDING
    next_at: float | None = None


class WebhookDelivery(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`job_id`: the job or batch that it tells of. `type` and `body` are what is sent, the same each time; with `type`
    "" it is a stub: tries came before the facts that made it, as may be in a rebuild.

    `tried`: how many tries there were, of which `tries` are the newest. `in_turn`: how many since the delivery was made
    or asked for, which was at `since`. `next_at`: not before then the next one, by the log's time. `reason`: why it is
    parked.
    """

    tenant: str
    job_id: str
    id: str
    type: str = ""
    endpoint: str = ""
    url: str = ""
    created_at: float = 0.0
    body: bytes = b""
    status: DeliveryStatus = DeliveryStatus.PENDING
    tried: int = 0
    tries: tuple[Try, ...] = ()
    in_turn: int = 0
    since: float = 0.0
    next_at: float | None = None
    reason: str = ""

    @property
    def receiver(self) -> str:
        """Those with the same one share its turns: the endpoint, or the tenant with host and port, so that no tenant's
        failures cost another its turns."""
        return self.endpoint or f"{self.tenant} {host_and_port(self.url)}"

    @property
    def gives_up_at(self) -> float:
        return self.since + GIVES_UP_AFTER_S


def delivery_id(tenant: str, job_id: str, about: str, target: WebhookTarget) -> str:
    """The webhook's id, the same over all tries and after a rebuild. `about`: which event of the job. Without a dot,
    which separates what is signed."""
    named = "\0".join((tenant, job_id, about, target.endpoint, target.url))
    return f"msg_{hashlib.sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def apply_delivery(delivery: WebhookDelivery | None, event: DeliveryEvent) -> WebhookDelivery:
    """The delivery after `event`. Repeating a try changes nothing: whoever tried writes it, and the projector too."""
    known = delivery or WebhookDelivery(tenant=event.tenant, job_id=event.job_id, id=event.delivery_id)
    if event.kind is DeliveryEventKind.ASKED:
        return replace(known, status=DeliveryStatus.PENDING, in_turn=0, since=event.at, next_at=event.at, reason="")
    if event.kind is DeliveryEventKind.PARKED:
        if known.status is not DeliveryStatus.PENDING:
            return known
        return replace(known, status=DeliveryStatus.PARKED, next_at=None, reason=event.code)
    if event.number <= known.tried:
        return known
    tries = (*known.tries, _try(event))[-TRIES_SHOWN:]
    tried = replace(known, tried=event.number, tries=tries, in_turn=known.in_turn + 1)
    if known.status is DeliveryStatus.DELIVERED:  # two tried at once, since one was taken for dead: once is enough
        return tried
    parked = event.outcome is DeliveryStatus.PARKED
    return replace(tried, status=event.outcome, next_at=event.next_at, reason=event.code if parked else "")


def made(known: WebhookDelivery | None, new: WebhookDelivery) -> WebhookDelivery:
    """`new` with what was known to have happened to it; the known one where it had been made already."""
    if known is None:
        return new
    if known.type:
        return known
    asked = known.since > 0
    first = known.status is DeliveryStatus.PENDING and known.next_at is None
    return replace(
        new,
        status=known.status,
        tried=known.tried,
        tries=known.tries,
        in_turn=known.in_turn,
        since=known.since if asked else new.since,
        next_at=new.next_at if first else known.next_at,
        reason=known.reason,
    )


def _try(event: DeliveryEvent) -> Try:
    return Try(
        number=event.number,
        at=event.at,
        status=event.status,
        latency_s=event.latency_s,
        code=event.code,
        message=event.message,
    )
