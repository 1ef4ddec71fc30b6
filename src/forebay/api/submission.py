"""The rules of accepting a job: which model, does the input fit it, where do its bytes go; then one durable write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from forebay.api.audience import Audience
from forebay.api.back_pressure import Bounds
from forebay.api.door import Door
from forebay.api.idempotency import Keeper, Key
from forebay.api.metering import Meter
from forebay.api.problems import without_folders
from forebay.api.schemas import JobFields
from forebay.core import crash
from forebay.core.clocks import ClockLimits
from forebay.core.errors import ForebayError, InvalidRequest, NotFound, OutcomeUnknown, Unavailable
from forebay.core.event import JobRequest
from forebay.core.ids import IdMint
from forebay.core.message import Channel, Message
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.core.queues import Place
from forebay.core.reservation import Reservation, digest_of_key, fingerprint_of
from forebay.core.webhook import WebhookTarget
from forebay.core.wire import encode_request
from forebay.ports.blobs import BlobStore
from forebay.ports.queue import Queue
from forebay.ports.task import Task

METADATA_MAX_BYTES = 16 * 1024
"""Metadata travels in a record's header and stands in every job row: it is for labels, not for data."""

WEBHOOK_POINTER = "/webhook/url"
"""To the address that a job names, in the body of `POST /v1/jobs`."""

CLOSED_S = 30.0
"""After a job that could not be written, for three of the usual probes, none should be sent here; then one may try."""


class ModelCatalog(Protocol):
    """What the API asks of the models directory (`forebay.catalog.Catalog`). It does not change while the API runs."""

    @property
    def specs(self) -> Mapping[str, Mapping[str, ModelSpec]]: ...

    @property
    def problems(self) -> Mapping[str, tuple[str, ...]]: ...

    def resolve(self, name: str, version: str = "") -> ModelSpec:
        """Raises NotFound with the names that are known."""


class Order(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller asks for, apart from the input itself. Its fingerprint leaves out what is not asked for, so that it
    stays the same where later versions know more to ask for. `max_queue_length` is no part of the job: where more wait
    than that, nothing is asked for."""

    tenant: str
    model: str
    version: str = ""
    lane: str = "normal"
    parameters: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    start_within_s: float | None = None
    run_timeout_s: float | None = None
    retain_s: float | None = None
    webhook: WebhookTarget | None = None
    max_queue_length: int | None = None


def order_of(tenant: str, said: JobFields) -> Order:
    return Order(
        tenant=tenant,
        model=said.model,
        version=said.version,
        lane=said.lane.value,
        parameters=said.parameters,
        metadata=said.metadata,
        start_within_s=said.start_within_s,
        run_timeout_s=said.run_timeout_s,
        retain_s=said.retain_s,
        webhook=None if said.webhook is None else WebhookTarget(url=said.webhook.url, events=said.webhook.events),
    )


def named(order: Order) -> tuple[WebhookTarget, ...]:
    """Who is told since the order says so."""
    return () if order.webhook is None else (order.webhook,)


class Accepted(Struct, frozen=True):
    """`replayed`: an earlier copy of the same submission had been accepted, and this is its job."""

    request: JobRequest
    replayed: bool = False


Offer = tuple[Order, Payload]
"""An order that fits its model, with its input as it will travel."""


class Submitter:
    """Turns orders into jobs on the queue. Inputs of more than `inline_limit_bytes` go to the blob store first.

    What an order brings is first taken, on any thread: that raises NotFound, or InvalidRequest with pointers into the
    request, and nothing has happened. What was taken is then accepted.
    """

    def __init__(
        self,
        *,
        queue: Queue,
        blobs: BlobStore,
        catalog: ModelCatalog,
        task_of: Callable[[str], Task],
        mint: IdMint,
        keeper: Keeper,
        audience: Audience,
        check_webhook_url: Callable[[str], object],
        meter: Meter,
        bounds: Bounds,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        clocks: ClockLimits,
        inline_limit_bytes: int,
    ) -> None:
        self._queue = queue
        self._durability = queue.features.durability.value
        self._blobs = blobs
        self._catalog = catalog
        self._task_of = task_of
        self._mint = mint
        self._keeper = keeper
        self._audience = audience
        self._check_webhook_url = check_webhook_url
        self._meter = meter
        self._bounds = bounds
        self._clock = clock
        self._monotonic = monotonic
        self._clocks = clocks
        self._inline_limit_bytes = inline_limit_bytes
        self._doors: dict[tuple[str, str], Door] = {}
        self._closed_until = 0.0

    def closed_s(self) -> float:
        """Seconds for which no job should be sent, since the last one could not be written; 0.0 if it could.

        The first that can be written ends them. They end by themselves too: where nothing is sent because of them,
        nothing could show that writing works again.
        """
        return max(0.0, self._closed_until - self._monotonic()) if self._closed_until else 0.0

    def take_value(self, order: Order, value: Any, *, input_name: str = "input") -> Offer:
        """The input is the JSON in the member `input_name` of the request's body."""
        door = self._door(order)
        return order, door.take_value(value, order.parameters, input_name)

    def take_body(self, order: Order, body: bytes, media_type: str, query: Mapping[str, Sequence[str]]) -> Offer:
        """The input is the request's body, the parameters are texts by name."""
        door = self._door(order)
        order = msgspec.structs.replace(order, parameters=door.parameters_of(query))
        return order, door.take_body(body, media_type, order.parameters)

    def check(self, order: Order) -> None:
        """Whether there may be jobs so ordered, whatever their inputs and parameters."""
        self._door(order)

    def _door(self, order: Order) -> Door:
        door = self._doors.get((order.model, order.version))
        if door is None:
            spec = self._resolve(order.model, order.version)
            door = self._doors[order.model, order.version] = Door(spec, self._task_of(spec.task))
        self._clocks.check(order.start_within_s, order.run_timeout_s, order.retain_s, door.spec.limits)
        if order.metadata and len(msgspec.json.encode(order.metadata)) > METADATA_MAX_BYTES:
            raise InvalidRequest(f"metadata is more than {METADATA_MAX_BYTES} bytes of JSON", pointer="/metadata")
        self.check_webhook(order)
        return door

    def check_webhook(self, order: Order) -> None:
        """Raises InvalidRequest for an address that is never called."""
        if order.webhook is not None:
            try:
                self._check_webhook_url(order.webhook.url)
            except InvalidRequest as error:
                error.pointer = WEBHOOK_POINTER
                raise

    async def told(self, order: Order) -> tuple[WebhookTarget, ...]:
        """Who is told of what is ordered: whom it names, and the tenant's endpoints. Raises Unavailable only where
        nothing was ever known of these."""
        return (*named(order), *await self._audience.of(order.tenant))

    def _resolve(self, model: str, version: str) -> ModelSpec:
        try:
            return self._catalog.resolve(model, version)
        except NotFound as error:
            if model in self._catalog.problems:
                error.message = f"{without_folders(error.message)}; see GET /v1/models/{quote(model)}"
            raise

    async def accept(self, offer: Offer, key: Key | None = None) -> Accepted:
        """When this returns, the job is durable in the queue's sense. Of submissions with one key there is one job.

        Raises Unavailable and TooMany when nothing was accepted, OutcomeUnknown when nobody can say, KeyReused,
        KeyInUse.
        """
        order, payload = offer
        now = self._clock()
        # To the millisecond, as the id says it: an answer made from the id alone then says the same.
        accepted_at = int(now * 1000) / 1000
        told = await self.told(order)
        if key is None:
            request = self.request(order, payload, self._mint.issue(order.tenant, now), accepted_at, told)
            await self.publish([request], order.max_queue_length)
            return Accepted(request)
        wanted = Reservation(
            tenant=order.tenant,
            key=key.digest,
            job_id=key.job_id or self._mint.issue(order.tenant, now),
            fingerprint=fingerprint_of(_job_of(order), payload),
            accepted_at=accepted_at,
        )

        def requested(under: Reservation) -> JobRequest:
            request = self.request(order, payload, under.job_id, under.accepted_at, told)
            return replace(request, key=under.key, fingerprint=under.fingerprint)

        return await self._accept_under(wanted, requested, order.max_queue_length)

    async def accept_again(self, old: JobRequest, key: Key) -> Accepted:
        """As `accept`, for a job that does `old` again, whose input must be inline. It was checked when `old` came.

        Raises NotFound, too, for a model that is not there any more.
        """
        self._resolve(old.model, old.version)
        wanted = Reservation(
            tenant=old.tenant,
            key=key.digest,
            job_id=key.job_id,
            fingerprint=digest_of_key("retry", old.job_id),
            accepted_at=int(self._clock() * 1000) / 1000,
        )

        def requested(under: Reservation) -> JobRequest:
            return replace(
                old,
                job_id=under.job_id,
                accepted_at=under.accepted_at,
                durability=self._durability,
                key=under.key,
                fingerprint=under.fingerprint,
                retry_of=old.job_id,
                line=None,  # the batch has its answer for the line
                place="",
            )

        return await self._accept_under(wanted, requested)

    async def _accept_under(
        self, wanted: Reservation, requested: Callable[[Reservation], JobRequest], behind: int | None = None
    ) -> Accepted:
        """`requested` is the job under the reservation that stands, which may be an earlier copy's."""

        async def publish(under: Reservation) -> None:
            await self.publish([requested(under)], behind)

        # One message: where nobody says that its outcome is unknown, it was not written.
        standing, replayed = await self._keeper.accept(wanted, publish, unwritten=ForebayError)
        return Accepted(requested(standing), replayed)

    async def publish(self, requests: Sequence[JobRequest], behind: int | None = None) -> None:
        """When this returns, all of them, which are of one tenant, are durable. Raises as `accept` does; some may be
        written then. `behind`: not where more wait in their lane."""
        if not requests:
            return
        lanes: dict[Place, int] = {}
        for request in requests:
            place = request.model, request.lane
            lanes[place] = lanes.get(place, 0) + 1
        await self._bounds.take(lanes, behind)
        try:
            await self._metered(requests)
        except OutcomeUnknown:
            raise  # they may have been accepted
        except BaseException:
            self._bounds.give_back(lanes)
            raise

    async def _metered(self, requests: Sequence[JobRequest]) -> None:
        tenant = requests[0].tenant
        await self._meter.take(tenant, len(requests))
        try:
            await self._publish(requests)
        except OutcomeUnknown:
            raise  # they may have been accepted
        except BaseException:
            self._meter.give_back(tenant, len(requests))
            raise

    def request(
        self,
        order: Order,
        payload: Payload,
        job_id: str,
        accepted_at: float,
        told: tuple[WebhookTarget, ...],
    ) -> JobRequest:
        """With all of its clocks set, so that whoever reads the log need not know the models."""
        limits = self._doors[order.model, order.version].spec.limits
        within_s = order.start_within_s
        return JobRequest(
            tenant=order.tenant,
            job_id=job_id,
            model=order.model,
            accepted_at=accepted_at,
            input=payload,
            version=order.version,
            lane=order.lane,
            parameters=order.parameters,
            metadata=order.metadata,
            start_within_s=within_s if within_s is not None else limits.start_within_s,
            run_timeout_s=order.run_timeout_s,
            retain_s=self._clocks.retain_of(order.retain_s, limits),
            max_life_s=self._clocks.max_life_s,
            durability=self._durability,
            webhooks=told,
        )

    async def _publish(self, requests: Sequence[JobRequest]) -> None:
        """Writes them all, and remembers whether jobs can be written."""
        try:
            messages: dict[Channel, list[Message]] = {}
            for request in requests:
                data = request.input.data
                if data is not None and len(data) > self._inline_limit_bytes:
                    request = await self._light(request, data)
                messages.setdefault(Channel(request.model, request.lane), []).append(encode_request(request))
            crash.reach("api.before_publish")
            for channel, of_channel in messages.items():
                await self._queue.publish(channel, of_channel)
            crash.reach("api.after_publish")
        except Unavailable as error:
            self._closed_until = self._monotonic() + max(CLOSED_S, error.retry_after_s)
            raise
        self._closed_until = 0.0

    async def _light(self, request: JobRequest, data: bytes) -> JobRequest:
        """With its large input in the blob store."""
        ref = await self._blobs.put(request.tenant, request.job_id, data)
        return replace(request, input=Payload(media_type=request.input.media_type, blob=ref))


def _job_of(order: Order) -> Mapping[str, Any]:
    """What of it makes the job: a copy with another `max_queue_length` asks for the same."""
    named: dict[str, Any] = msgspec.to_builtins(order)
    named.pop("max_queue_length", None)
    return named
