"""Receivers that a tenant has made known: where they are, what they want to hear, and what signs it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from forebay.core.webhook import DEFAULT_EVENTS, WebhookEvent
from forebay.core.webhook_secret import new_secret

ENDPOINTS_MOST = 100
"""Of one tenant: each of its jobs names them."""

OVERLAP_S = 86_400.0
"""So long an old secret signs beside the new one, if nobody says otherwise: a day to bring the new one to receivers."""

ITSELF = ""
"""The id under which a tenant keeps what signs messages to addresses that its jobs name themselves."""


class HeldSecret(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`until`: no longer than that, in seconds since the epoch; None while nothing has taken its place."""

    secret: str
    until: float | None = None


class WebhookEndpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`secrets`: the newest first; two while one takes the other's place. `failing_since`: since then it has answered
    nothing well. Disabled it is told nothing, and `disabled_reason` says why."""

    id: str
    tenant: str
    url: str = ""
    events: tuple[WebhookEvent, ...] = DEFAULT_EVENTS
    description: str = ""
    secrets: tuple[HeldSecret, ...]
    created_at: float
    disabled_at: float | None = None
    disabled_reason: str = ""
    failing_since: float | None = None


def itself_of(tenant: str, random_bytes: Callable[[int], bytes], now: float) -> WebhookEndpoint:
    """What a tenant keeps for itself at first."""
    secret = HeldSecret(secret=new_secret(random_bytes))
    return WebhookEndpoint(id=ITSELF, tenant=tenant, secrets=(secret,), created_at=now)


def valid_secrets(endpoint: WebhookEndpoint, now: float) -> Sequence[str]:
    """Those that sign at `now`, the newest first."""
    return [held.secret for held in endpoint.secrets if held.until is None or held.until > now]


def rotated(endpoint: WebhookEndpoint, secret: str, now: float, overlap_s: float = OVERLAP_S) -> WebhookEndpoint:
    """With a new secret, and the one before it for `overlap_s` more. Any older one ends."""
    before = replace(endpoint.secrets[0], until=now + overlap_s)
    kept = (before,) if overlap_s > 0 else ()
    return replace(endpoint, secrets=(HeldSecret(secret=secret), *kept))


def disabled(endpoint: WebhookEndpoint, now: float, reason: str) -> WebhookEndpoint:
    """As it was, if it is disabled already."""
    if endpoint.disabled_at is not None:
        return endpoint
    return replace(endpoint, disabled_at=now, disabled_reason=reason)


def enabled(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """With a clean sheet."""
    return replace(endpoint, disabled_at=None, disabled_reason="", failing_since=None)
