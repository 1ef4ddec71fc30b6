"""Routes about webhook endpoints, and about the secrets that sign what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace
from starlette.requests import Request

from forebay.api.answers import JSON_TYPE, NO_STORE, Answer, header
from forebay.api.bodies import parse_json, read_body, read_json_body
from forebay.api.endpoint_schemas import EndpointChange, EndpointSubmission, SecretRotation
from forebay.api.heads import header_value
from forebay.api.queries import refuse_query
from forebay.api.schemas import check
from forebay.api.tenancy import tenant_of
from forebay.core.errors import Conflict, InvalidRequest, NotFound
from forebay.core.times import to_rfc3339
from forebay.core.webhook import WebhookEvent
from forebay.core.webhook_endpoint import (
    ENDPOINTS_MOST,
    HeldSecret,
    WebhookEndpoint,
    disabled,
    enabled,
    itself_of,
    rotated,
)
from forebay.core.webhook_secret import new_secret
from forebay.ports.webhook_endpoints import WebhookEndpoints

log = structlog.get_logger()

PATH = "/v1/webhook-endpoints"
BY_REQUEST = "disabled on request"
_encode = msgspec.json.Encoder().encode
_FOUND = (JSON_TYPE, NO_STORE)


class EndpointRoutes:
    """`check_url` raises InvalidRequest for an address that nothing may be sent to."""

    def __init__(
        self,
        *,
        endpoints: WebhookEndpoints,
        check_url: Callable[[str], object],
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._endpoints = endpoints
        self._check_url = check_url
        self._clock = clock
        self._random_bytes = random_bytes

    async def add_endpoint(self, request: Request) -> Answer:
        """From now on it is told of every job of the tenant, within 5 s. `secret` is what its messages are signed
        with."""
        refuse_query(request)
        asked = check(EndpointSubmission, parse_json(await read_json_body(request)))
        self._check(asked.url)
        tenant = tenant_of(request)
        secret = new_secret(self._random_bytes)
        endpoint = WebhookEndpoint(
            id=f"ep_{self._random_bytes(12).hex()}",
            tenant=tenant,
            url=asked.url,
            events=_in_order(asked.events),
            description=asked.description,
            secrets=(HeldSecret(secret=secret),),
            created_at=self._clock(),
        )
        await self._add(endpoint)
        log.info("webhook_endpoint.added", tenant=tenant, endpoint=endpoint.id)
        location = header("location", f"{PATH}/{endpoint.id}")
        return Answer(201, _encode({**_document(endpoint), "secret": secret}), (*_FOUND, location))

    async def _add(self, endpoint: WebhookEndpoint) -> None:
        """Counted when it is there: of two that come at once for the last place neither may get it, and never do both,
        whatever their clocks say."""
        if not await self._endpoints.add(endpoint):
            raise Conflict("its id is taken; ask again", retryable=True)
        if len(await self._endpoints.of_tenant(endpoint.tenant)) > ENDPOINTS_MOST:
            await self._endpoints.remove(endpoint.tenant, endpoint.id)
            raise Conflict(f"a tenant has at most {ENDPOINTS_MOST} webhook endpoints", code="too_many_endpoints")

    async def list_endpoints(self, request: Request) -> Answer:
        """All there are; never what signs."""
        refuse_query(request)
        found = await self._endpoints.of_tenant(tenant_of(request))
        return Answer(200, _encode({"endpoints": [_document(one) for one in found]}), _FOUND)

    async def get_endpoint(self, request: Request) -> Answer:
        """Its state; never what signs."""
        refuse_query(request)
        return Answer(200, _encode(_document(await self._found(request))), _FOUND)

    async def get_endpoint_secret(self, request: Request) -> Answer:
        """What signs the messages to it."""
        refuse_query(request)
        return self._secret(await self._found(request))

    async def change_endpoint(self, request: Request) -> Answer:
        """Messages that wait go where it is then. Whoever changes another part of it meanwhile is not undone."""
        refuse_query(request)
        asked = check(EndpointChange, parse_json(await read_json_body(request)))
        if asked.url is not None:
            self._check(asked.url)
        changed = await self._change(*_named(request), lambda one: _changed(one, asked, self._clock()))
        return Answer(200, _encode(_document(changed)), _FOUND)

    async def rotate_endpoint_secret(self, request: Request) -> Answer:
        """A new secret; the one so far signs beside it for `overlap_s`, a day if left out, and any older one no
        more."""
        refuse_query(request)
        return await self._rotate(*_named(request), await _rotation(request))

    async def remove_endpoint(self, request: Request) -> Answer:
        """Nothing is sent to it any more, what waits neither."""
        refuse_query(request)
        endpoint = await self._found(request)
        if not await self._endpoints.remove(endpoint.tenant, endpoint.id):
            raise _unknown(endpoint.id)
        log.info("webhook_endpoint.removed", tenant=endpoint.tenant, endpoint=endpoint.id)
        return Answer(204, b"", (NO_STORE,))

    async def get_webhook_secret(self, request: Request) -> Answer:
        """The tenant's own: it signs messages to addresses that jobs name themselves. Made when it is first needed."""
        refuse_query(request)
        return self._secret(await self._itself(tenant_of(request)))

    async def rotate_webhook_secret(self, request: Request) -> Answer:
        """As that of an endpoint."""
        refuse_query(request)
        asked = await _rotation(request)
        own = await self._itself(tenant_of(request))
        return await self._rotate(own.tenant, own.id, asked)

    async def _itself(self, tenant: str) -> WebhookEndpoint:
        return await self._endpoints.itself(tenant, lambda: itself_of(tenant, self._random_bytes, self._clock()))

    async def _found(self, request: Request) -> WebhookEndpoint:
        tenant, endpoint_id = _named(request)
        found = await self._endpoints.get(tenant, endpoint_id)
        if found is None:
            raise _unknown(endpoint_id)
        return found

    async def _change(
        self, tenant: str, endpoint_id: str, how: Callable[[WebhookEndpoint], WebhookEndpoint]
    ) -> WebhookEndpoint:
        changed = await self._endpoints.change(tenant, endpoint_id, how)
        if changed is None:
            raise _unknown(endpoint_id)
        return changed

    async def _rotate(self, tenant: str, endpoint_id: str, asked: SecretRotation) -> Answer:
        secret = new_secret(self._random_bytes)
        changed = await self._change(
            tenant, endpoint_id, lambda one: rotated(one, secret, self._clock(), asked.overlap_s)
        )
        log.info("webhook_secret.rotated", tenant=tenant, endpoint=endpoint_id)
        return self._secret(changed)

    def _check(self, url: str) -> None:
        try:
            self._check_url(url)
        except InvalidRequest as error:
            error.pointer = "/url"
            raise

    def _secret(self, endpoint: WebhookEndpoint) -> Answer:
        newest, *older = endpoint.secrets
        told: dict[str, Any] = {"secret": newest.secret}
        for one in older:
            if one.until is not None and one.until > self._clock():
                told["previous"] = {"secret": one.secret, "until": to_rfc3339(one.until)}
        return Answer(200, _encode(told), _FOUND)


async def _rotation(request: Request) -> SecretRotation:
    """A body is not needed: who says nothing gets what is usual."""
    if header_value(request, b"content-type") is None and not await read_body(request):
        return SecretRotation()
    return check(SecretRotation, parse_json(await read_json_body(request)))


def _changed(endpoint: WebhookEndpoint, asked: EndpointChange, now: float) -> WebhookEndpoint:
    if asked.url is not None and asked.url != endpoint.url:
        endpoint = replace(endpoint, url=asked.url, failing_since=None)
    if asked.events is not None:
        endpoint = replace(endpoint, events=_in_order(asked.events))
    if asked.description is not None:
        endpoint = replace(endpoint, description=asked.description)
    if asked.enabled is None:
        return endpoint
    return enabled(endpoint) if asked.enabled else disabled(endpoint, now, BY_REQUEST)


def _in_order(events: list[WebhookEvent]) -> tuple[WebhookEvent, ...]:
    return tuple(event for event in WebhookEvent if event in events)


def _document(endpoint: WebhookEndpoint) -> dict[str, Any]:
    """Without its secrets."""
    told: dict[str, Any] = {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": endpoint.events,
        "enabled": endpoint.disabled_at is None,
        "created_at": to_rfc3339(endpoint.created_at),
    }
    for name in ("description", "disabled_reason"):
        if text := getattr(endpoint, name):
            told[name] = text
    for name in ("disabled_at", "failing_since"):
        if (at := getattr(endpoint, name)) is not None:
            told[name] = to_rfc3339(at)
    return told


def _named(request: Request) -> tuple[str, str]:
    """Tenant and id of the endpoint in the path."""
    return tenant_of(request), request.path_params["endpoint_id"]


def _unknown(endpoint_id: str) -> NotFound:
    return NotFound(f"no webhook endpoint has the id {endpoint_id[:80]!r}", code="unknown_endpoint")
