"""image-classification: a photo in, labels with scores out, as the Hugging Face pipeline of that name gives them."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from forebay.core.errors import InvalidRequest, UnsupportedMedia
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.task import Codec, Task
from forebay.tasks.ranking import labels_schema, top_k_schema

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")
TOP_K = 5

# A red square of 8 x 8 pixels.
EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR42mO4I6KBFTEMLQkAQ7VFQQTNPpcAAAAASUVORK5CYII="


class ImageClassification(Task):
    """Input: base64 of a JPEG, PNG or WebP file, or a data URL; or the file itself as a raw body."""

    name = "image-classification"

    def input_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Image",
            "description": (
                "A JPEG, PNG or WebP file in base64, or as a data URL (data:image/png;base64,...). "
                f"At most {spec.limits.max_pixels} pixels; of an animation the first frame counts."
            ),
            "type": "string",
            "minLength": 1,
            "contentEncoding": "base64",
            "examples": [EXAMPLE, f"data:image/png;base64,{EXAMPLE}"],
        }

    def output_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return labels_schema(spec, example_label="Egyptian cat")

    def parameters_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return top_k_schema(TOP_K)

    def media_types(self, spec: ModelSpec) -> Sequence[str]:
        return MEDIA_TYPES

    def parse_input(self, value: Any, spec: ModelSpec) -> Payload:
        if not isinstance(value, str):
            raise InvalidRequest("expected a string with base64 of an image")
        return _payload(_decode(value), None)

    def parse_body(self, body: bytes, media_type: str, spec: ModelSpec) -> Payload:
        essence = media_type.partition(";")[0].strip().lower()
        if essence not in MEDIA_TYPES:
            raise UnsupportedMedia(f"{essence!r} is not one of {', '.join(MEDIA_TYPES)}", accepted=MEDIA_TYPES)
        return _payload(body, essence)

    def codec(self, spec: ModelSpec) -> Codec:
        from forebay.tasks.image_codec import ImageCodec

        return ImageCodec.of(spec)


def sniff(data: bytes) -> str | None:
    """The media type that the first bytes speak for (WHATWG MIME Sniffing, section 6.1), None for another format."""
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:14] == b"WEBPVP":
        return "image/webp"
    return None


def _payload(data: bytes, claimed: str | None) -> Payload:
    found = sniff(data)
    if found is None:
        raise InvalidRequest("the bytes are not a JPEG, PNG or WebP file", code="bad_image")
    if claimed is not None and found != claimed:
        raise InvalidRequest(f"the bytes are {found}, not {claimed}", code="bad_image")
    return Payload(media_type=found, data=data)


def _decode(text: str) -> bytes:
    """Base64 (RFC 4648 section 4, padded, no line breaks), alone or in a data URL (RFC 2397)."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest("a data URL must be data:<media type>;base64,<data>", code="bad_base64")
    try:
        return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidRequest("the string is not base64 (padded, without line breaks)", code="bad_base64") from None
