"""What the text tasks share on their light side: a string, or a pair of them, or a raw body of plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from forebay.core.errors import InvalidRequest, UnsupportedMedia
from forebay.core.payload import JSON, TEXT, Payload
from forebay.core.wire import canonical_json
from forebay.tasks.ranking import SCHEMA

MEDIA_TYPES = (TEXT,)

CHARSETS = frozenset(
    ["utf-8", "utf8", "us-ascii", "ascii", "utf-16", "utf-16le", "utf-16be", "koi8-r", "koi8-u"]
    + ["big5", "euc-jp", "euc-kr", "gb18030", "gbk", "shift_jis", "iso-2022-jp"]
    + ["latin1", "latin-1"]  # as Python and many programs call iso-8859-1
    + [f"iso-8859-{part}" for part in range(1, 17) if part != 12]
    + [f"windows-{page}" for page in range(1250, 1259)]
)
"""The encodings of the web (WHATWG Encoding, section 4.2), and not whatever Python knows: some of its codecs are none
of text, and it remembers each unknown name that it was ever asked for.
"""


class TextPair(Struct, frozen=True, forbid_unknown_fields=True):
    """`text_pair` is the second text of a model that compares two, None for the others."""

    text: str
    text_pair: str | None = None


def text_schema(max_chars: int, example: str) -> Mapping[str, Any]:
    text = {"type": "string", "maxLength": max_chars}
    return {
        "$schema": SCHEMA,
        "title": "Text",
        "description": f"A text, or a text and its pair, of at most {max_chars} characters each; it may be empty.",
        "anyOf": [
            text,
            {
                "type": "object",
                "properties": {"text": text, "text_pair": text},
                "required": ["text"],
                "additionalProperties": False,
            },
        ],
        "examples": [example, {"text": example}],
    }


def parse_text(value: Any, max_chars: int) -> Payload:
    """A string travels as plain text, an object as JSON."""
    if isinstance(value, str):
        return Payload(media_type=TEXT, data=_utf8(_bounded(value, max_chars, ""), ""))
    try:
        pair = msgspec.convert(value, TextPair)
    except (msgspec.ValidationError, RecursionError):
        raise InvalidRequest('expected a string, or {"text": string, "text_pair": string}') from None
    for key in ("text", "text_pair"):
        if isinstance(value.get(key), str):
            _utf8(_bounded(value[key], max_chars, f"/{key}"), f"/{key}")
    sent = {"text": pair.text} if pair.text_pair is None else {"text": pair.text, "text_pair": pair.text_pair}
    return Payload(media_type=JSON, data=canonical_json(sent))


def parse_text_body(body: bytes, media_type: str, max_chars: int) -> Payload:
    """`text/plain`, in UTF-8 unless its charset says another of CHARSETS."""
    essence, _, rest = media_type.partition(";")
    if essence.strip().lower() != TEXT:
        raise UnsupportedMedia(f"{essence.strip()!r} is not {TEXT}", accepted=MEDIA_TYPES)
    charset = _charset(rest)
    try:
        text = body.decode(charset)
    except UnicodeError:
        raise InvalidRequest(f"the body is not {charset}", code="bad_text") from None
    return parse_text(text, max_chars)


def read_text(data: bytes, media_type: str, max_chars: int) -> TextPair:
    """The inverse of both, checking everything again, since a job need not come through the API."""
    essence = media_type.partition(";")[0].strip().lower()
    try:
        if essence == TEXT:
            return TextPair(_bounded(data.decode(_charset(media_type.partition(";")[2])), max_chars, ""))
        if essence == JSON:
            return _read_json(data, max_chars)
    except UnicodeError:
        raise InvalidRequest("the text is not in the encoding that its media type says", code="bad_text") from None
    raise InvalidRequest(f"{essence!r} is neither {TEXT} nor {JSON}", code="unsupported_media_type")


def _read_json(data: bytes, max_chars: int) -> TextPair:
    try:
        found = msgspec.json.decode(data, type=str | TextPair)
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidRequest('expected a string, or {"text": string, "text_pair": string}') from None
    pair = TextPair(found) if isinstance(found, str) else found
    _bounded(pair.text, max_chars, "/text")
    if pair.text_pair is not None:
        _bounded(pair.text_pair, max_chars, "/text_pair")
    return pair


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            name = value.strip().strip('"').lower()
            if name not in CHARSETS:
                shown = repr(name[:40])
                raise InvalidRequest(f"the charset {shown} is not known here; send UTF-8", code="bad_text")
            return name
    return "utf-8"


def _bounded(text: str, max_chars: int, pointer: str) -> str:
    if len(text) > max_chars:
        raise InvalidRequest(
            f"the text has {len(text)} characters; the limit is {max_chars}", pointer=pointer, code="text_too_long"
        )
    return text


def _utf8(text: str, pointer: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the text holds half of a surrogate pair", pointer=pointer, code="bad_text") from None
