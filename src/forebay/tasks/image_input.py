"""What image tasks take, on their light side: base64, data URLs and raw bodies, told apart by their first bytes."""

from __future__ import annotations

import binascii

from forebay.core.errors import InvalidRequest
from forebay.core.payload import Payload

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")


def sniff(data: bytes) -> str | None:
    """The media type that the first bytes speak for (WHATWG MIME Sniffing, section 6.1), None for another format."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:14] == b"WEBPVP":
        return "image/webp"
    return None


def image_payload(data: bytes, claimed: str | None) -> Payload:
    found = sniff(data)
    if found is None:
        raise InvalidRequest("the bytes are not a JPEG, PNG or WebP file", code="bad_image")
    if claimed is not None and found != claimed:
        raise InvalidRequest(f"the bytes are {found}, not {claimed}", code="bad_image")
    return Payload(media_type=found, data=data)


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
