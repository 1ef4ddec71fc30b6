"""Request bodies: limited, and strictly JSON where JSON is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from forebay.api.heads import header_value
from forebay.api.problems import MALFORMED
from forebay.core.errors import InvalidRequest, UnsupportedMedia
from forebay.core.nesting import MAX_DEPTH, is_deeper
from forebay.core.payload import JSON

FORM = "application/x-www-form-urlencoded"
FILE = "--data-binary @FILE"
_decode = msgspec.json.Decoder().decode


async def read_body(request: Request) -> bytes:
    """As `request.body()`, but the request does not keep it: a caller may wait a minute for the result, and their body
    shall not lie here meanwhile. Raises ClientDisconnect for a caller who hangs up before its end."""
    pieces: list[bytes] = []
    while True:  # as `request.stream()`, without a generator that is driven for each of them
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def read_json_body(request: Request) -> bytes:
    """A body that says it is JSON, for `parse_json`. Raises UnsupportedMedia, PayloadTooLarge, Overloaded."""
    media_type = essence_of(header_value(request, b"content-type") or "")
    if not _is_json(media_type):
        advice = _advice(media_type, JSON)
        if media_type not in ("", FORM):
            advice = f"send JSON, or the input itself to POST /v1/models/MODEL/jobs: {FILE}"
        raise UnsupportedMedia(f"{_said(media_type)}; {advice}", accepted=(JSON,))
    return await read_body(request)


def refusal_of_input(media_type: str, accepted: Sequence[str]) -> UnsupportedMedia:
    """What to say of a raw body of a type that its model does not take; `accepted` are those that it does, best
    first."""
    media_type = essence_of(media_type)
    said = f"{_said(media_type)}, and the model takes {', '.join(accepted)}"
    return UnsupportedMedia(f"{said}; {_advice(media_type, accepted[0])}", accepted=accepted)


def parse_json(body: bytes) -> Any:
    """Strict JSON (RFC 8259): UTF-8, no NaN or Infinity, numbers that fit, at most MAX_DEPTH deep. Raises
    InvalidRequest with the code `malformed_json`.

    Of a repeated name the last counts, as in most parsers (RFC 8259 section 4 leaves it open); nobody downstream parses
    the same text again, so nobody can read it otherwise.
    """
    if not body:
        raise InvalidRequest("the body is empty", code=MALFORMED)
    try:
        value = _decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: bytes that are not UTF-8, numbers too long
        raise InvalidRequest(f"the body is not JSON: {error}", code=MALFORMED) from error
    # Fewer brackets cannot be deeper: the usual body costs two scans.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        raise _too_deep()
    return value


def essence_of(media_type: str) -> str:
    """In lower case and without its parameters."""
    return media_type.partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    return media_type == JSON or (media_type.startswith("application/") and media_type.endswith("+json"))


def _said(media_type: str) -> str:
    if media_type == FORM:
        return f"the body is said to be {FORM}, curl's default"
    return f"the body is said to be {media_type!r}" if media_type else "the body has no content-type"


def _advice(media_type: str, best: str) -> str:
    """What to type instead, for those who use curl."""
    if media_type.startswith("multipart/"):
        return f"send the file itself: {FILE} -H 'content-type: {best}'"
    if _is_json(media_type):
        return "JSON goes to POST /v1/jobs"
    return f"add -H 'content-type: {best}'"


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels", code=MALFORMED)
