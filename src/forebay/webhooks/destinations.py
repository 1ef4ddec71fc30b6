"""Where a delivery goes and what signs it, and what its receiver's answers mean for the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from forebay.core.delivery import WebhookDelivery
from forebay.core.webhook_endpoint import WebhookEndpoint, disabled, itself_of, valid_secrets
from forebay.ports.webhook_endpoints import WebhookEndpoints
from forebay.telemetry.metrics import Metrics

KNOWN_FOR_S = 2.0
"""So long a changed endpoint may be called as it was: looked up for each try, a burst would cost as many reads."""

KNOWN_MOST = 10_000

log = structlog.get_logger()
K = TypeVar("K")
V = TypeVar("V")


class Destination(Struct, frozen=True):
    """The secrets that hold now, the newest first."""

    url: str
    secrets: Sequence[str]


class Nowhere(Struct, frozen=True):
    """There is nobody to call, and `reason` says why."""

    reason: str


class Destinations:
    """`disable_after_s`: an endpoint that has answered nothing well for so long is disabled."""

    def __init__(
        self,
        endpoints: WebhookEndpoints,
        metrics: Metrics,
        *,
        disable_after_s: float,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self._disable_after_s = disable_after_s
        self._clock = clock
        self._monotonic = monotonic
        self._random_bytes = random_bytes
        self._known: dict[tuple[str, str], tuple[float, WebhookEndpoint | None]] = {}
        self._secrets: dict[str, tuple[float, Sequence[str]]] = {}

    async def of(self, delivery: WebhookDelivery) -> Destination | Nowhere:
        """Raises Unavailable."""
        if not delivery.endpoint:
            return Destination(delivery.url, await self._secrets_of(delivery.tenant))
        endpoint = await self._endpoint(delivery.tenant, delivery.endpoint)
        if endpoint is None:
            return Nowhere("endpoint_removed")
        if endpoint.disabled_at is not None:
            return Nowhere("endpoint_disabled")
        return Destination(endpoint.url, valid_secrets(endpoint, self._clock()))

    async def note(
        self, delivery: WebhookDelivery, destination: Destination, *, ok: bool, gone: bool, now: float
    ) -> None:
        """What a try says of the endpoint that was called, if it is still there. `now` is the log's time. Raises
        Unavailable."""
        if not delivery.endpoint or (known := await self._endpoint(delivery.tenant, delivery.endpoint)) is None:
            return
        if ok and known.failing_since is None:
            return
        cause = ""

        def how(one: WebhookEndpoint) -> WebhookEndpoint:
            nonlocal cause
            cause = ""
            if one.disabled_at is not None or one.url != destination.url:
                return one
            if gone:
                cause = "gone"
                return disabled(one, now, "it answered 410 Gone")
            if ok or one.failing_since is None:
                return replace(one, failing_since=None if ok else now)
            # Not by the first try of a delivery: what succeeded meanwhile may be another process's, seconds ago.
            if now - one.failing_since >= self._disable_after_s and delivery.in_turn > 0:
                cause = "failing"
                days = (now - one.failing_since) / 86_400.0
                return disabled(one, now, f"nothing was delivered to it for {days:.1f} days")
            return one

        if how(known) == known and not gone:
            return
        await self._endpoints.change(known.tenant, known.id, how)
        self._known.pop((known.tenant, known.id), None)
        if cause:
            self._metrics.webhook_endpoints_disabled.labels(cause).inc()
            log.error("webhooks.endpoint_disabled", tenant=known.tenant, endpoint=known.id, cause=cause)

    async def _endpoint(self, tenant: str, endpoint_id: str) -> WebhookEndpoint | None:
        key, now = (tenant, endpoint_id), self._monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] < KNOWN_FOR_S:
            return known[1]
        endpoint = await self._endpoints.get(tenant, endpoint_id)
        _remember(self._known, key, (now, endpoint))
        return endpoint

    async def _secrets_of(self, tenant: str) -> Sequence[str]:
        now = self._monotonic()
        known = self._secrets.get(tenant)
        if known is not None and now - known[0] < KNOWN_FOR_S:
            return known[1]
        itself = await self._endpoints.itself(tenant, lambda: itself_of(tenant, self._random_bytes, self._clock()))
        secrets = valid_secrets(itself, self._clock())
        _remember(self._secrets, tenant, (now, secrets))
        return secrets


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """The oldest goes when there are too many."""
    known.pop(key, None)
    known[key] = value
    if len(known) > KNOWN_MOST:
        del known[next(iter(known))]
