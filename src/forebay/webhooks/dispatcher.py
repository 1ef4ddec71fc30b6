"""Outbox in, signed HTTP requests out. Several run side by side, in one process or in many.

    claim ─▶ sign, send ─▶ note in the log ─▶ settle

A delivery is claimed for a while, and whoever dies lets that pass: then another sends it again, with the same id and
bytes. What came of a try stands in the log before it stands in the outbox, so that a rebuild calls nobody again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

import structlog
from msgspec import Struct

from forebay.core import crash
from forebay.core.delivery import MESSAGE_CHARS, DeliveryEvent, DeliveryEventKind, DeliveryStatus, WebhookDelivery
from forebay.core.errors import ForebayError, Unavailable
from forebay.core.webhook_secret import signed_headers
from forebay.ports.event_log import EventLog
from forebay.ports.outbox import Outbox
from forebay.telemetry.metrics import Metrics
from forebay.webhooks.destinations import Destination, Destinations, Nowhere
from forebay.webhooks.receivers import Receivers
from forebay.webhooks.schedule import next_try_s
from forebay.webhooks.sender import Reply, SendFailed, phrase

AT_ONCE = 256
"""Requests under way in one process."""

DOUBTFUL_MOST = 128
"""Of these, so many to receivers that have not answered well: however many are slow, the others have their turn."""

RESERVED = 32
"""Of these, so many are never taken by receivers that answer well, however much waits for them: so whoever is new, or
has failed once, has a turn."""

NEW_AT_ONCE = 2
"""Deliveries of one receiver in one claim, before it has answered well."""

GATHER_S = 0.001
SETTLE_GATHER_S = 0.01
"""So long a request that has ended, or an outcome, waits for others: each claim and each settlement is a
transaction."""

LEASE_S = 60.0
"""Four times as long as a request may take: whoever still holds a delivery then has died, or the log is away."""

LOOK_EVERY_S = 0.25
LATE_EVERY_S = 60.0
LATE_MOST = 100

AWAY_S = 0.5

_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
"""Answers of a receiver that asks for a rest."""

GONE = "gone"
"""The code of a try whose answer was 410: there will be no other."""

log = structlog.get_logger()


class Sender(Protocol):
    """As `webhooks.sender.Sender`."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply: ...


class DispatcherPlan(Struct, frozen=True, kw_only=True):
    """`holder`: the name of this process, like no other's. `drain_s`: how long a stop waits for requests under way."""

    holder: str
    look_every_s: float = LOOK_EVERY_S
    lease_s: float = LEASE_S
    drain_s: float = 20.0


class Answer(Struct, frozen=True):
    """What came of a request: `code` says what went wrong, "" if nothing did."""

    status: int | None
    retry_after_s: float | None
    code: str
    message: str
    latency_s: float


class Dispatcher:
    def __init__(
        self,
        plan: DispatcherPlan,
        *,
        outbox: Outbox,
        events: EventLog,
        destinations: Destinations,
        sender: Sender,
        receivers: Receivers,
        metrics: Metrics,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._plan = plan
        self._outbox = outbox
        self._events = events
        self._destinations = destinations
        self._sender = sender
        self._receivers = receivers
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._log_time = (0.0, 0.0)  # the log's, and ours when we asked for it
        self._under_way: set[asyncio.Task[None]] = set()
        self._outcomes: list[DeliveryEvent] = []
        self._logged = 0  # of these, so many are in the log
        self._others_at = 0.0  # before then it is known that there are none of receivers that are new or doubtful
        self._came = asyncio.Event()  # an outcome
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """`run()` returns once what is under way has ended, within `drain_s`; the rest waits for the next process."""
        self._stopping.set()
        self._room.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            settling = tasks.create_task(self._keep_settling(), name="webhooks.settle")
            parking = tasks.create_task(self._keep_parking(), name="webhooks.park")
            await self._keep_claiming()
            parking.cancel()
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=self._plan.drain_s)
            settling.cancel()
        for task in self._under_way:
            task.cancel()
        with contextlib.suppress(Unavailable):  # then leases end by themselves, and what was sent is sent again
            await self._settle()
            await self._outbox.give_back(self._plan.holder)

    # --------------------------------------------------------------------------------------------------------- claim

    async def _keep_claiming(self) -> None:
        while not self._stopping.is_set():
            self._room.clear()  # first: what ends while we ask is not forgotten
            try:
                found = await self._claim()
            except Unavailable as error:
                log.warning("webhooks.backend_away", code=error.code, error=error.message)
                await self._pause(max(AWAY_S, error.retry_after_s))
                continue
            for delivery in found:
                self._begin(delivery)
            if not found:
                await self._pause(self._plan.look_every_s)
                await asyncio.sleep(GATHER_S)

    async def _claim(self) -> list[WebhookDelivery]:
        """What there is room for: first of receivers that answer well, then of all others."""
        room = AT_ONCE - len(self._under_way) - len(self._outcomes)
        if room <= 0:
            return []
        now = await self._now()
        until, at = now + self._plan.lease_s, self._monotonic()
        found: list[WebhookDelivery] = []
        for ready in self._receivers.ready(at):
            limit = room - len(found) - RESERVED
            if ready and limit > 0:
                each = min(ready.values())
                found += await self._outbox.claim(
                    now, holder=self._plan.holder, until=until, limit=limit, each=each, only=ready
                )
        others = min(room - len(found), DOUBTFUL_MOST - self._receivers.doubtful)
        pace = asyncio.get_running_loop().time()
        if others > 0 and pace >= self._others_at:
            without = self._receivers.not_new(at)
            new = await self._outbox.claim(
                now, holder=self._plan.holder, until=until, limit=others, each=NEW_AT_ONCE, without=without
            )
            self._others_at = 0.0 if new else pace + self._plan.look_every_s
            found += new
        return found

    def _begin(self, delivery: WebhookDelivery) -> None:
        self._receivers.begin(delivery.receiver)
        task = asyncio.create_task(self._deliver(delivery))
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("webhooks.delivery_failed", exc_info=error)  # its lease ends, and it is tried again
        self._room.set()

    async def _now(self) -> float:
        """The log's time."""
        now = await self._events.now()
        self._log_time = now, self._monotonic()
        return now

    def _log_now(self) -> float:
        """The same, without asking."""
        now, at = self._log_time
        return now + self._monotonic() - at

    async def _pause(self, seconds: float) -> None:
        """Until then, or until a request has ended."""
        if not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):  # it was waited for long enough
                async with asyncio.timeout(seconds):
                    await self._room.wait()

    # ---------------------------------------------------------------------------------------------------------- send

    async def _deliver(self, delivery: WebhookDelivery) -> None:
        """What came of it is noted before anything else: nothing that goes wrong behind it makes us send it again."""
        answer: Answer | None = None
        try:
            if delivery.gives_up_at <= self._log_now():
                self._note(_late(delivery, self._log_now()))
                return
            destination = await self._destinations.of(delivery)
            if isinstance(destination, Nowhere):
                self._note(_parked(delivery, self._log_now(), destination.reason))
                return
            answer = await self._send(delivery, destination)
            self._note(self._tried(delivery, answer))
            await self._destinations.note(
                delivery, destination, ok=not answer.code, gone=answer.code == GONE, now=self._log_now()
            )
        except ForebayError as error:  # of whoever keeps the endpoints; of what is not noted the lease ends
            log.warning("webhooks.endpoint_unknown", delivery=delivery.id, code=error.code, error=error.message)
        finally:
            self._end_turn(delivery.receiver, answer)

    async def _send(self, delivery: WebhookDelivery, destination: Destination) -> Answer:
        began = self._monotonic()
        status, retry_after_s, code, message = None, None, "", ""
        try:
            headers = signed_headers(destination.secrets, delivery.id, int(self._clock()), delivery.body)
            crash.reach("webhooks.before_send")
            reply = await self._sender.send(destination.url, headers, delivery.body)
            status, retry_after_s = reply.status, reply.retry_after_s
        except SendFailed as failure:  # an outcome like any other
            code, message = failure.code, failure.message[:MESSAGE_CHARS]
        except Exception:  # a fault of ours, or of a row: tried as often as others, and it harms no other
            code = "internal"
            log.exception("webhooks.send_failed", tenant=delivery.tenant, delivery=delivery.id)
        crash.reach("webhooks.after_send")
        if status is not None and not 200 <= status < 300:
            code, message = (GONE if status == HTTPStatus.GONE else "status"), phrase(status)
        return Answer(status, retry_after_s, code, message, self._monotonic() - began)

    def _tried(self, delivery: WebhookDelivery, answer: Answer) -> DeliveryEvent:
        code, now = answer.code, self._log_now()
        outcome, next_at = DeliveryStatus.DELIVERED, None
        if code:
            tries = delivery.in_turn + 1
            wait_s = None if code == GONE else next_try_s(tries, self._random(), answer.retry_after_s)
            outcome = DeliveryStatus.PARKED if wait_s is None else DeliveryStatus.PENDING
            next_at = None if wait_s is None else now + wait_s
        self._metrics.webhook_tries.labels(outcome.value, code or "ok").inc()
        self._metrics.webhook_seconds.observe(answer.latency_s)
        return DeliveryEvent(
            tenant=delivery.tenant,
            job_id=delivery.job_id,
            delivery_id=delivery.id,
            kind=DeliveryEventKind.TRIED,
            at=now,
            number=delivery.tried + 1,
            status=answer.status,
            latency_s=round(answer.latency_s, 6),
            code=code,
            message=answer.message,
            outcome=outcome,
            next_at=next_at,
        )

    def _end_turn(self, receiver: str, answer: Answer | None) -> None:
        """In one place, whatever became of it."""
        if answer is None:
            self._receivers.refused(receiver)
        elif not answer.code:
            self._receivers.succeeded(receiver)
        elif answer.status is None:
            self._receivers.failed(receiver, self._monotonic())
        elif answer.status >= 500 or answer.status in _BUSY or answer.status == HTTPStatus.REQUEST_TIMEOUT:
            rest_s = (answer.retry_after_s or 0.0) if answer.status in _BUSY else 0.0
            self._receivers.failed(receiver, self._monotonic(), rest_s)
        else:
            self._receivers.refused(receiver)

    # -------------------------------------------------------------------------------------------------------- settle

    def _note(self, outcome: DeliveryEvent) -> None:
        if DeliveryStatus.PARKED in (outcome.outcome, outcome.kind.value):
            self._metrics.webhooks_parked.labels(outcome.code).inc()
        self._outcomes.append(outcome)
        self._came.set()

    async def _keep_settling(self) -> None:
        while True:
            await self._came.wait()
            await asyncio.sleep(SETTLE_GATHER_S)
            self._came.clear()
            try:
                await self._settle()
            except Unavailable as error:
                log.warning("webhooks.backend_away", code=error.code, error=error.message)
                await asyncio.sleep(max(AWAY_S, error.retry_after_s))
                self._came.set()

    async def _settle(self) -> None:
        """All outcomes that there are: into the log, then into the outbox. Raises Unavailable, and keeps them."""
        outcomes = list(self._outcomes)
        if not outcomes:
            return
        if len(outcomes) > self._logged:  # those before are in the log, and only the outbox was away
            await self._events.publish(outcomes[self._logged :])
            self._logged = len(outcomes)
        crash.reach("webhooks.before_settle")
        await self._outbox.settle(self._plan.holder, outcomes)
        del self._outcomes[: len(outcomes)]
        self._logged = 0
        self._room.set()

    async def _keep_parking(self) -> None:
        """Those that had no turn for too long."""
        while True:
            try:
                now = await self._now()
                late = await self._outbox.claim_late(
                    now, holder=self._plan.holder, until=now + self._plan.lease_s, limit=LATE_MOST
                )
                for delivery in late:
                    self._note(_late(delivery, now))
            except Unavailable as error:
                log.warning("webhooks.backend_away", code=error.code, error=error.message)
                late = []
            await asyncio.sleep(AWAY_S if len(late) == LATE_MOST else LATE_EVERY_S)


def _parked(delivery: WebhookDelivery, at: float, reason: str) -> DeliveryEvent:
    return DeliveryEvent(
        tenant=delivery.tenant,
        job_id=delivery.job_id,
        delivery_id=delivery.id,
        kind=DeliveryEventKind.PARKED,
        at=at,
        code=reason,
    )


def _late(delivery: WebhookDelivery, at: float) -> DeliveryEvent:
    """Of one that has waited for too long: parked for what its last try came to, or since it had none."""
    return _parked(delivery, at, delivery.tries[-1].code if delivery.tries else "no_turn")
