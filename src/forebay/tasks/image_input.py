"""What image tasks take, on their light side: base64, data URLs and raw bodies, told apart by their first bytes."""

from __future__ import annotations

import binascii

from forebay.core.errors import InvalidRequest, UnsupportedMedia
from forebay.core.payload import Payload

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")
_LIKELY = frozenset([*MEDIA_TYPES, "image/jpg", "application/octet-stream"])


def sniff(data: bytes) -> str | None:
    """The media type that the first bytes speak for (WHATWG MIME Sniffing, section 6.1), None for another format."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:14] == b"WEBPVP":
        return "image/webp"
    return None


def image_payload(data: bytes) -> Payload:
    found = sniff(data)
    if found is None:
        raise InvalidRequest("the bytes are not a JPEG, PNG or WebP file", code="bad_image")
    return Payload(media_type=found, data=data)


def image_body(body: bytes, media_type: str) -> Payload:
    """Of what is said to be an image, or nothing in particular, the bytes decide which format it is."""
    essence = media_type.partition(";")[0].strip().lower()
    fits = essence in _LIKELY or (essence.startswith("image/") and (not body or sniff(body) is not None))
    if not fits:
        raise UnsupportedMedia(f"{essence!r} is not one of {', '.join(MEDIA_TYPES)}", accepted=MEDIA_TYPES)
    if not body:
        raise InvalidRequest("the body is empty", code="bad_image")
    return image_payload(body)


def decode_base64(text: str) -> bytes:
    """Base64 (RFC 4648 section 4, padded, no line breaks), alone or in a data URL (RFC 2397)."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest("a data URL must be data:<media type>;base64,<data>", code="bad_base64")
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidRequest("the string is not base64 (padded, without line breaks)", code="bad_base64") from None
