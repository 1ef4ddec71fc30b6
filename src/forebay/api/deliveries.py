"""Webhook deliveries: shown, listed, asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from forebay.api.cancel import LOGGED_WITHIN_S
from forebay.api.listing import LIMIT_DEFAULT, LIMIT_MAX, cursor_of, read_cursor
from forebay.api.problems import InvalidQuery
from forebay.api.queries import time, whole
from forebay.api.reading import JobReader
from forebay.core.delivery import (
    DeliveryEvent,
    DeliveryEventKind,
    DeliveryStatus,
    Try,
    WebhookDelivery,
    apply_delivery,
)
from forebay.core.errors import NotFound, Unavailable
from forebay.core.times import to_rfc3339
from forebay.ports.event_log import EventLog
from forebay.ports.outbox import DeliveryQuery, Outbox

OF_JOB_MOST = 1000
"""Deliveries of one job that are shown: a job has hundreds only where it emits its output in pieces."""

LOOK_AT = 10_000
"""Deliveries at most that one page looks at, whatever is asked for."""

REDELIVER_FOR_S = 5.0
"""As long as redriving dead letters takes: then an answer says how far it got."""
AT_ONCE = 200

_FILTERS = ("status", "endpoint", "since")
_encode = msgspec.json.Encoder().encode


class TryObject(Struct, frozen=True, kw_only=True):
    number: int
    at: str
    status: int | UnsetType = UNSET
    latency_s: float
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class DeliveryObject(Struct, frozen=True, kw_only=True):
    """The order of the members is the order in which they are read."""

    id: str
    job_id: str | UnsetType = UNSET
    batch_id: str | UnsetType = UNSET
    type: str
    endpoint: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    status: DeliveryStatus
    reason: str | UnsetType = UNSET
    created_at: str
    next_try_at: str | UnsetType = UNSET
    tries_total: int
    tries: list[TryObject]
    payload: Raw | UnsetType = UNSET


class Redelivered(Struct, frozen=True, kw_only=True):
    """How many were asked for, and behind which place there may be more."""

    asked: int
    next_cursor: str | UnsetType = UNSET


def read_query(
    tenant: str, query: Sequence[tuple[str, str]], *, limited: bool = True, status: DeliveryStatus | None = None
) -> DeliveryQuery:
    """`status` is the default; `limited`: the caller may say how many. Raises InvalidQuery."""
    given = dict(query)
    known = (*_FILTERS, "cursor", *(("limit",) if limited else ()))
    for name in given:
        if name not in known:
            raise InvalidQuery(name, f"not known here; known: {', '.join(known)}")
    if "status" in given:
        if given["status"] not in set(DeliveryStatus):
            raise InvalidQuery("status", f"one of {', '.join(DeliveryStatus)}")
        status = DeliveryStatus(given["status"])
    return DeliveryQuery(
        tenant=tenant,
        endpoint=given.get("endpoint"),
        status=status,
        since=time(given, "since") or 0.0,
        after=read_cursor(given["cursor"]) if "cursor" in given else None,
        limit=whole(given, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
        look=LOOK_AT,
    )


class Deliveries:
    def __init__(
        self,
        *,
        reader: JobReader,
        outbox: Outbox,
        events: EventLog,
        draining: asyncio.Event,
        monotonic: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._outbox = outbox
        self._events = events
        self._draining = draining
        self._monotonic = monotonic

    async def of_job(self, tenant: str, job_id: str) -> bytes:
        """Of a batch too. Raises NotFound and Gone as reading a job does."""
        found = await self._outbox.deliveries(tenant, job_id, OF_JOB_MOST)
        if not found:
            job = await self._reader.get(tenant, job_id)
            found = await self._outbox.deliveries(tenant, job.id, OF_JOB_MOST)
        return _encode({"deliveries": [_object(one) for one in found]})

    async def one(self, tenant: str, job_id: str, delivery_id: str) -> bytes:
        """With what is sent."""
        return _encode(_object(await self._delivery(tenant, job_id, delivery_id), payload=True))

    async def page(self, query: DeliveryQuery) -> bytes:
        page = await self._outbox.list_deliveries(query)
        told: dict[str, Any] = {"deliveries": [_object(one) for one in page.deliveries]}
        if page.next is not None:
            told["next_cursor"] = cursor_of(page.next)
        return _encode(told)

    async def redeliver(self, tenant: str, job_id: str, delivery_id: str) -> bytes:
        """The delivery as it will be: due now, with as many tries before it as a new one. Raises NotFound, Gone;
        Unavailable when it is not known that the log has it."""
        delivery = await self._delivery(tenant, job_id, delivery_id)
        [asked] = await self._ask([delivery])
        return _encode(_object(apply_delivery(delivery, asked)))

    async def redeliver_many(self, query: DeliveryQuery) -> bytes:
        """All that fit, the oldest first, for REDELIVER_FOR_S. Raises Unavailable if it could not even begin."""
        began, asked = self._monotonic(), 0
        query = replace(query, limit=AT_ONCE)
        while True:
            try:
                page = await self._outbox.list_deliveries(query)
                await self._ask(page.deliveries)
            except Unavailable:  # how far it came is an answer
                if not asked:
                    raise
                break
            asked += len(page.deliveries)
            if page.next is None:
                return _encode(Redelivered(asked=asked))
            query = replace(query, after=page.next)
            if self._draining.is_set() or self._monotonic() - began >= REDELIVER_FOR_S:
                break
        assert query.after is not None, "there was a page before this one"
        return _encode(Redelivered(asked=asked, next_cursor=cursor_of(query.after)))

    async def _delivery(self, tenant: str, job_id: str, delivery_id: str) -> WebhookDelivery:
        delivery = await self._outbox.delivery(tenant, job_id, delivery_id)
        if delivery is not None:
            return delivery
        job = await self._reader.get(tenant, job_id)
        delivery = await self._outbox.delivery(tenant, job.id, delivery_id)
        if delivery is None:
            raise NotFound(f"the job {job.id} has no delivery of this id", code="unknown_delivery")
        return delivery

    async def _ask(self, deliveries: Sequence[WebhookDelivery]) -> Sequence[DeliveryEvent]:
        if not deliveries:
            return []
        now = await self._events.now()
        asked = [
            DeliveryEvent(
                tenant=one.tenant,
                job_id=one.job_id,
                delivery_id=one.id,
                kind=DeliveryEventKind.ASKED,
                at=now,
            )
            for one in deliveries
        ]
        try:
            async with asyncio.timeout(LOGGED_WITHIN_S):
                await self._events.publish(asked)
        except TimeoutError as error:
            raise Unavailable(f"the log has not taken it within {LOGGED_WITHIN_S:g} s") from error
        return asked


def _object(one: WebhookDelivery, *, payload: bool = False) -> DeliveryObject:
    of_batch = one.type.startswith("batch.")
    return DeliveryObject(
        id=one.id,
        job_id=UNSET if of_batch else one.job_id,
        batch_id=one.job_id if of_batch else UNSET,
        type=one.type,
        endpoint=one.endpoint or UNSET,
        url=one.url or UNSET,
        status=one.status,
        reason=one.reason or UNSET,
        created_at=to_rfc3339(one.created_at),
        next_try_at=UNSET if one.next_at is None else to_rfc3339(one.next_at),
        tries_total=one.tried,
        tries=[_try(each) for each in one.tries],
        payload=Raw(one.body) if payload else UNSET,
    )


def _try(one: Try) -> TryObject:
    return TryObject(
        number=one.number,
        at=to_rfc3339(one.at),
        status=UNSET if one.status is None else one.status,
        latency_s=one.latency_s,
        code=one.code or UNSET,
        message=one.message or UNSET,
    )
