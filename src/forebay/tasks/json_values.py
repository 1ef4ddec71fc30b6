"""json: any JSON value in and out, for Python handlers. The handler gets the value that the client sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from forebay.core.errors import InvalidRequest, ModelFailed, UnsupportedMedia
from forebay.core.model import ModelSpec
from forebay.core.nesting import is_deeper
from forebay.core.payload import JSON, TEXT, Payload
from forebay.core.wire import canonical_json
from forebay.ports.task import Codec, Task
from forebay.tasks.ranking import SCHEMA

MEDIA_TYPES = (JSON, TEXT)

MAX_DEPTH = 64
"""Handlers walk what they are given; deeper nesting serves nobody but an attacker."""

PARSE_ERRORS = (ValueError, RecursionError)


class JsonValues(Task):
    """A JSON string travels as plain text, as in every task; a raw body of text/plain is such a string."""

    name = "json"

    def input_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return {
            "$schema": SCHEMA,
            "title": "Value",
            "description": f"Any JSON value that the model's handler understands, nested at most {MAX_DEPTH} deep.",
            "examples": [{"any": ["JSON", 1, True, None]}, "text"],
        }

    def output_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return {
            "$schema": SCHEMA,
            "title": "Value",
            "description": "Any JSON value, as the model's handler returns it.",
            "examples": [{"any": ["JSON", 1, True, None]}],
        }

    def parameters_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return {
            "$schema": SCHEMA,
            "title": "Parameters",
            "description": "Any object; the handler finds it in the contexts that it may ask for.",
            "type": "object",
            "examples": [{}],
        }

    def media_types(self, spec: ModelSpec) -> Sequence[str]:
        return MEDIA_TYPES

    def parse_input(self, value: Any, spec: ModelSpec) -> Payload:
        if isinstance(value, str):
            try:
                return Payload(media_type=TEXT, data=value.encode())
            except UnicodeEncodeError:
                raise InvalidRequest("the text holds half of a surrogate pair") from None
        return Payload(media_type=JSON, data=encode_json_input(value))

    def parse_body(self, body: bytes, media_type: str, spec: ModelSpec) -> Payload:
        return self.parse_input(read_json_value(body, media_type), spec)

    def codec(self, spec: ModelSpec) -> Codec:
        return JsonCodec()


class JsonCodec(Codec):
    """Light enough to live here: what a handler returns may hold numpy values, and those turn themselves into lists."""

    def decode(self, data: bytes, media_type: str, parameters: Mapping[str, Any]) -> Any:
        return read_json_value(data, media_type)

    def collate(self, items: Sequence[Any]) -> list[Any]:
        return list(items)

    def encode(self, outputs: Any, items: Sequence[Any]) -> list[Payload | ModelFailed]:
        if not isinstance(outputs, (list, tuple)) or len(outputs) != len(items):
            raise ModelFailed("the handler must return a list with one output per input", code="wrong_output_count")
        return [output if isinstance(output, ModelFailed) else _payload(output) for output in outputs]


def read_json_value(data: bytes, media_type: str) -> Any:
    """A JSON body, or the text of a plain one, in UTF-8."""
    essence = media_type.partition(";")[0].strip().lower()
    if essence not in MEDIA_TYPES:
        raise UnsupportedMedia(f"{essence!r} is not one of {', '.join(MEDIA_TYPES)}", accepted=MEDIA_TYPES)
    if not data and essence == JSON:
        raise InvalidRequest("the body is empty", code="bad_json")
    try:
        value = data.decode() if essence == TEXT else json.loads(data, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise InvalidRequest("the bytes are not UTF-8", code="bad_json") from None
    except PARSE_ERRORS as error:
        raise InvalidRequest(f"the bytes are not JSON: {error}", code="bad_json") from None
    _check_depth(value)
    return value


def encode_json_input(value: Any) -> bytes:
    """Canonical JSON. Raises InvalidRequest for what JSON has not, such as NaN or half of a surrogate pair."""
    _check_depth(value)
    try:
        json.dumps(value, allow_nan=False)  # msgspec would write null for NaN, which is another value
        return canonical_json(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"the value is not JSON: {error}", code="bad_json") from None


def _check_depth(value: Any) -> None:
    if is_deeper(value, MAX_DEPTH):
        raise InvalidRequest(f"the value is nested more than {MAX_DEPTH} deep", code="too_deep")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def encode_json_output(output: Any) -> bytes:
    """Of a handler's value: JSON in one line. Raises ModelFailed (`bad_output`) for what JSON has not."""
    try:
        text = json.dumps(output, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_to_json)
        return text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFailed(f"the handler's output is not JSON ({error})", code="bad_output") from error


def _payload(output: Any) -> Payload | ModelFailed:
    try:
        return Payload(media_type=JSON, data=encode_json_output(output))
    except ModelFailed as failure:
        return failure


def _to_json(value: Any) -> Any:
    """numpy's scalars and arrays, and torch's tensors, know how to become plain values."""
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"a {type(value).__name__} is no JSON value")
    return to_list()
