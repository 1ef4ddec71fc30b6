"""API keys: who a caller is and what they may do. Only a digest of a key is ever kept.

A key is `fby_<id>_<secret>`: 12 hexadecimal digits to find it by, and 256 random bits, so that a plain SHA-256 of the
secret is as safe as a slow hash and costs nothing. A secret that an operator made otherwise is a key too (`of_secret`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Collection
from enum import StrEnum

from msgspec import Struct

from forebay.core.errors import InvalidRequest

PREFIX = "fby"
ID_BYTES = 6
SECRET_BYTES = 32
OWN_SECRET = re.compile(r"[!-~]{32,512}")
"""A secret that an operator made: it must not be guessed either, and must fit a header."""

_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")
GOOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of tenants, which become parts of record keys and of blobs' names."""


class Scope(StrEnum):
    """What a caller may do. `admin` is for what is about no job, and implies no other."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"


class ApiKey(Struct, frozen=True, kw_only=True):
    """`digest`: SHA-256 of the secret, in hexadecimal digits. Times are seconds since the epoch."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    digest: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_secret(self, secret: str) -> bool:
        return hmac.compare_digest(self.digest, _digest(secret))

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def new_key(
    *,
    tenant: str,
    name: str,
    scopes: Collection[Scope],
    now: float,
    random_bytes: Callable[[int], bytes],
    expires_at: float | None = None,
) -> tuple[ApiKey, str]:
    """A key, and the token that is shown once. Raises InvalidRequest for a tenant that makes no name."""
    key_id = random_bytes(ID_BYTES).hex()
    secret = base64.urlsafe_b64encode(random_bytes(SECRET_BYTES)).decode().rstrip("=")
    key = _key(key_id, secret, tenant, name, scopes, now, expires_at)
    return key, f"{PREFIX}_{key_id}_{secret}"


def of_secret(token: str, *, tenant: str, name: str, scopes: Collection[Scope], now: float) -> ApiKey:
    """The key of a token, such as an operator has put into a file. Raises InvalidRequest for one that could be
    guessed or not be sent."""
    key_id, secret = parse(token)
    if not OWN_SECRET.fullmatch(token):
        raise InvalidRequest(
            "a key has 32 to 512 visible ASCII characters without a space, as `openssl rand -hex 32` gives"
        )
    return _key(key_id, secret, tenant, name, scopes, now, None)


def parse(token: str) -> tuple[str, str]:
    """Id and secret. What is no token of ours is a secret of an operator's, found by a digest of its own."""
    match = _TOKEN.fullmatch(token)
    return (match[1], match[2]) if match else (_digest(f"id\0{token}")[: 2 * ID_BYTES], token)


def _key(
    key_id: str,
    secret: str,
    tenant: str,
    name: str,
    scopes: Collection[Scope],
    now: float,
    expires_at: float | None,
) -> ApiKey:
    if not GOOD_NAME.fullmatch(tenant):
        raise InvalidRequest(f"tenant {tenant!r}: 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first")
    if not scopes:
        raise InvalidRequest(f"a key needs at least one scope: {', '.join(Scope)}")
    return ApiKey(
        id=key_id,
        tenant=tenant,
        name=name,
        scopes=frozenset(scopes),
        digest=_digest(secret),
        created_at=now,
        expires_at=expires_at,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
