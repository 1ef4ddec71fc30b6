"""Request bodies: limited, and strictly JSON where JSON is asked for."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from forebay.api.problems import MALFORMED
from forebay.core.errors import InvalidRequest, UnsupportedMedia
from forebay.core.nesting import is_deeper
from forebay.core.payload import JSON

MAX_DEPTH = 100
"""Arrays and objects within each other. Tensors need 8 or so; what walks a value recursively is safe below this."""

_decode = msgspec.json.Decoder().decode


async def read_json(request: Request) -> Any:
    """The body as JSON. Raises UnsupportedMedia, PayloadTooLarge, or InvalidRequest with the code `malformed_json`."""
    media_type = media_type_of(request)
    if media_type != JSON and not (media_type.startswith("application/") and media_type.endswith("+json")):
        said = f"the body is said to be {media_type!r}" if media_type else "the body has no content-type"
        raise UnsupportedMedia(f"{said}; send JSON with content-type: {JSON}", accepted=(JSON,))
    return parse_json(await request.body())


def parse_json(body: bytes) -> Any:
    """Strict JSON (RFC 8259): UTF-8, no NaN or Infinity, numbers that fit, at most MAX_DEPTH deep.

    Of a repeated name the last counts, as in most parsers (RFC 8259 section 4 leaves it open); nobody downstream parses
    the same text again, so nobody can read it otherwise.
    """
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


def media_type_of(request: Request) -> str:
    """The media type in lower case without its parameters, "" if none was sent."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested deeper than {MAX_DEPTH} levels", code=MALFORMED)
