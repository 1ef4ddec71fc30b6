"""Who calls, and may they? Every route says which scope it takes; see `core/api_key.py` for what a key is."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.requests import Request

from forebay.api.heads import header_value
from forebay.api.tenancy import DEFAULT_TENANT
from forebay.core.api_key import ApiKey, Scope, parse
from forebay.core.errors import Forbidden, Unauthorized, Unavailable
from forebay.ports.api_keys import ApiKeys

KNOWN_FOR_S = 5.0
"""So long a revoked key may still be let in, and whoever has none after the first key was made."""

STALE_S = 300.0
"""While the keys cannot be read, what was known of them holds for so long: a job takes nothing but the queue to submit,
and so it stays, with a key too."""

KNOWN_MOST = 10_000
TOKEN_MAX_CHARS = 512

_BEARER = re.compile(r"bearer[ ]+(\S+)", re.IGNORECASE)


class Gate:
    """Lets a caller in by `Authorization: Bearer KEY` or `X-API-Key: KEY`. As long as there has never been a key,
    nobody is asked for one, and everybody is the default tenant.

    What it has read of keys it knows for KNOWN_FOR_S.
    """

    def __init__(self, keys: ApiKeys, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, ApiKey | None]] = {}
        self._closed = False
        self._looked_at = float("-inf")

    async def admit(self, request: Request, scope: Scope) -> str:
        """The caller's tenant. Raises Unauthorized, Forbidden; Unavailable where nobody can tell, see STALE_S."""
        token = token_of(request)
        key, secret = None, ""
        if token is not None and len(token) <= TOKEN_MAX_CHARS:
            key_id, secret = parse(token)
            key = await self._key(key_id)
        if key is None and not await self._is_closed():
            return DEFAULT_TENANT
        if token is None:
            raise Unauthorized("send your API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`", code="no_key")
        if key is None or not key.is_secret(secret):
            raise Unauthorized("no such API key", code="invalid_key")
        if (state := key.state(self._clock())) != "active":
            raise Unauthorized(f"the API key {key.id} ({key.name}) is {state}", code=f"{state}_key")
        if scope not in key.scopes:
            raise Forbidden(
                f"the API key {key.id} ({key.name}) may {', '.join(sorted(key.scopes))}, and this takes {scope.value}",
                code="scope_missing",
            )
        return key.tenant

    async def _is_closed(self) -> bool:
        """Once closed it stays so."""
        now = self._monotonic()
        if not self._closed and now - self._looked_at >= KNOWN_FOR_S:
            try:
                if await self._keys.all():
                    self._closed = True
                self._looked_at = now
            except Unavailable:  # what was known holds, see STALE_S
                if now - self._looked_at >= STALE_S:
                    raise
        return self._closed

    async def _key(self, key_id: str) -> ApiKey | None:
        now = self._monotonic()
        known = self._known.get(key_id)
        if known is not None and now - known[0] < KNOWN_FOR_S:
            return known[1]
        try:
            key = await self._keys.get(key_id)
        except Unavailable:  # what was known holds, see STALE_S
            if known is None or now - known[0] >= STALE_S:
                raise
            return known[1]
        self._closed = self._closed or key is not None
        self._known.pop(key_id, None)
        self._known[key_id] = now, key
        if len(self._known) > KNOWN_MOST:
            del self._known[next(iter(self._known))]
        return key


def token_of(request: Request) -> str | None:
    """None for a caller without a key; another scheme of `Authorization` is none of ours, such as a proxy's."""
    header = header_value(request, b"authorization")
    if header is not None and (match := _BEARER.fullmatch(header.strip())):
        return match[1]
    return header_value(request, b"x-api-key")
