"""Signing a webhook and verifying it: Standard Webhooks 1.0.0, symmetric (`v1`), byte for byte.

What is signed is `{webhook-id}.{webhook-timestamp}.{body}`, with HMAC-SHA256 and the bytes behind a secret
`whsec_<base64>`. The header is a list, so that a receiver may know the old secret or the new one while they change.
Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md, "Signature scheme".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forebay.core.errors import InvalidRequest, WebhookNotVerified

PREFIX = "whsec_"
SECRET_BYTES = 32
"""Of those that we make: as long as what the hash gives; longer ones sign no better."""
LEAST_BYTES, MOST_BYTES = 24, 64
"""What the standard allows."""

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
VERSION = "v1"

TOLERANCE_S = 300.0
"""How far a timestamp may lie from the receiver's clock, either way: what the standard's own libraries take."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    return PREFIX + base64.b64encode(random_bytes(SECRET_BYTES)).decode()


def secret_bytes(secret: str) -> bytes:
    """What signs. Raises InvalidRequest, which does not repeat the secret, for one that is none."""
    if not secret.startswith(PREFIX):
        raise InvalidRequest(f"a webhook secret begins with {PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise InvalidRequest(f"a webhook secret is base64 behind {PREFIX}, with its padding") from error
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise InvalidRequest(f"a webhook secret has {LEAST_BYTES} to {MOST_BYTES} bytes, not {len(key)}")
    return key


def sign(secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret, in their order.

    `timestamp` is of this try, in whole seconds. Raises InvalidRequest for a secret that is none, ValueError for no
    secret and for an id with a dot: it would move the border between id and timestamp.
    """
    if not secrets:
        raise ValueError("nothing to sign with")
    if not webhook_id or "." in webhook_id:
        raise ValueError(f"{webhook_id!r} is no webhook id")
    content = f"{webhook_id}.{timestamp}.".encode() + body
    return " ".join(_signature(secret_bytes(secret), content) for secret in secrets)


def signed_headers(secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What is sent with `body`. Arguments and errors as those of `sign`."""
    return {
        "content-type": "application/json",
        ID_HEADER: webhook_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: sign(secrets, webhook_id, timestamp, body),
    }


def verify(
    body: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: float, tolerance_s: float = TOLERANCE_S
) -> Any:
    """The payload, parsed, once one of the signatures is that of one of `secrets`; other versions are passed over.

    The case of the headers' names does not matter. Raises WebhookNotVerified, whatever the headers and the body hold,
    and InvalidRequest for a secret that is none.
    """
    if not secrets:
        raise InvalidRequest("no webhook secret was given")
    keys = [secret_bytes(secret) for secret in secrets]
    webhook_id, stamp, signatures = (_only(headers, name) for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not _TIMESTAMP.fullmatch(stamp):
        raise WebhookNotVerified(f"{TIMESTAMP_HEADER} is no time in whole seconds", code="webhook_header_malformed")
    if int(stamp) < now - tolerance_s:
        raise WebhookNotVerified(f"signed more than {tolerance_s:g} s ago", code="webhook_too_old")
    if int(stamp) > now + tolerance_s:
        raise WebhookNotVerified(f"signed more than {tolerance_s:g} s ahead of this clock", code="webhook_too_new")
    content = f"{webhook_id}.{stamp}.".encode("utf-8", "surrogatepass") + body
    expected = [_signature(key, content).encode() for key in keys]
    given = [entry.encode("utf-8", "surrogatepass") for entry in signatures.split(" ")]
    if not any(hmac.compare_digest(one, other) for one in expected for other in given):
        raise WebhookNotVerified("no signature is that of a known secret", code="webhook_signature_wrong")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WebhookNotVerified("signed, and no JSON", code="webhook_body_malformed") from error


def _signature(key: bytes, content: bytes) -> str:
    return f"{VERSION},{base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()}"


def _only(headers: Mapping[str, str], name: str) -> str:
    """Two of a kind would let two readers of one request see different ones."""
    values = [value for key, value in headers.items() if key.lower() == name]
    if not values or not values[0]:
        raise WebhookNotVerified(f"{name} is missing", code="webhook_header_missing")
    if len(values) > 1:
        raise WebhookNotVerified(f"{name} is there {len(values)} times", code="webhook_header_malformed")
    return values[0]
