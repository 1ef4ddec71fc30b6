"""Which of a tenant's endpoints are told of a job, known without a question on the way of a submission."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from forebay.core.errors import ForebayError
from forebay.core.webhook import WebhookTarget
from forebay.core.webhook_endpoint import ENDPOINTS_MOST
from forebay.ports.webhook_endpoints import WebhookEndpoints

KNOWN_FOR_S = 5.0
"""As for keys and quotas: so long a new endpoint may not be told of what is accepted. After half of that it is looked
at again beside a submission: only who has been idle waits for it."""

KNOWN_MOST = 10_000

log = structlog.get_logger()


class _Known:
    def __init__(self) -> None:
        self.targets: tuple[WebhookTarget, ...] = ()
        self.at = float("-inf")
        self.failure: ForebayError | None = None
        self.looking: asyncio.Task[None] | None = None


class Audience:
    def __init__(self, endpoints: WebhookEndpoints, monotonic: Callable[[], float]) -> None:
        self._endpoints = endpoints
        self._monotonic = monotonic
        self._tenants: dict[str, _Known] = {}

    async def of(self, tenant: str) -> tuple[WebhookTarget, ...]:
        """Those that are enabled. While the endpoints cannot be read, what was known of them holds: a job takes nothing
        but the queue to submit. Raises Unavailable where nothing was ever known of them: a job that nobody is told of
        stays so."""
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Known()
            if len(self._tenants) > KNOWN_MOST:
                del self._tenants[next(iter(self._tenants))]
        age_s = self._monotonic() - known.at
        if age_s >= KNOWN_FOR_S / 2 and (known.looking is None or known.looking.done()):
            known.looking = asyncio.create_task(self._look(tenant, known))
        if age_s >= KNOWN_FOR_S and known.looking is not None:
            await asyncio.shield(known.looking)
        if known.failure is not None:
            raise known.failure
        return known.targets

    async def _look(self, tenant: str, known: _Known) -> None:
        try:
            endpoints = await self._endpoints.of_tenant(tenant)
            enabled = [one for one in endpoints if one.disabled_at is None]
            known.targets = tuple(WebhookTarget(endpoint=one.id, events=one.events) for one in enabled[:ENDPOINTS_MOST])
            known.failure = None
            known.at = self._monotonic()
        except ForebayError as error:  # nobody need await this task
            log.warning("webhook_endpoints.unknown", tenant=tenant, code=error.code, error=error.message)
            if known.at == float("-inf"):
                known.failure = error
            else:
                known.at = self._monotonic()
