"""What one model lets in: its schemas, compiled once, and the texts of a query string made into parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec
from jsonschema_rs import ValidationErrorKind as Kind

from forebay.api.bodies import refusal_of_input
from forebay.api.problems import InvalidFields, InvalidQuery, pointer_to
from forebay.core.errors import InvalidRequest, UnsupportedMedia
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.task import Task

MAX_PLACES = 20
"""More wrong places than this are not listed."""

MAX_WORDS = 500
"""A message may hold a property's name, which is the caller's and as long as they like."""
MASK = "the value"
"""Stands for the caller's (perhaps huge, perhaps private) input in messages about it."""

_decode = msgspec.json.Decoder().decode


class Door:
    """Checks what comes in for one version of one model. Quick for what fits, thorough for what does not."""

    def __init__(self, spec: ModelSpec, task: Task) -> None:
        self.spec = spec
        self._task = task
        self._parameters_schema = task.parameters_schema(spec)
        # offline: a schema never fetches another.
        input_schema = dict(task.input_schema(spec))
        self._title = str(input_schema.get("title", "input")).lower()
        self._input = jsonschema_rs.validator_for(input_schema, mask=MASK, offline=True)
        self._parameters = jsonschema_rs.validator_for(dict(self._parameters_schema), mask=MASK, offline=True)

    def take_value(self, value: Any, parameters: Mapping[str, Any], input_name: str) -> Payload:
        """The payload of an input given as JSON in the member `input_name` of the body.

        Raises InvalidFields with pointers into the body.
        """
        parameters_fit = self._parameters.is_valid(parameters)
        if not (parameters_fit and self._input.is_valid(value)):
            _refuse(self._input_faults(value, input_name) + _faults(self._parameters, parameters, "parameters"))
        try:
            return self._task.parse_input(value, self.spec)
        except InvalidRequest as error:
            error.pointer = pointer_to([input_name]) + error.pointer
            raise

    def take_body(self, body: bytes, media_type: str, parameters: Mapping[str, Any]) -> Payload:
        """The payload of an input that is the whole body. Raises UnsupportedMedia or InvalidRequest."""
        if not self._parameters.is_valid(parameters):
            _refuse(_faults(self._parameters, parameters, "parameters"))
        try:
            return self._task.parse_body(body, media_type, self.spec)
        except UnsupportedMedia as error:
            raise refusal_of_input(media_type, error.accepted) from error

    def _input_faults(self, value: Any, name: str) -> list[tuple[str, str]]:
        if isinstance(value, list) and value and isinstance(value[0], str) and self._input.is_valid(value[0]):
            return [(pointer_to([name]), f"one {self._title} per job: submit each by itself")]
        return _faults(self._input, value, name)

    def parameters_of(self, query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Parameters from a query string, typed as the schema says; a text that is not of its type stays one, for the
        schema to refuse. A parameter that is an array takes repeated names, or JSON like every other.

        Raises InvalidQuery for a name that the model does not know.
        """
        properties = self._parameters_schema.get("properties", {})
        if self._parameters_schema.get("additionalProperties", True) is False:
            for name in query:
                if name not in properties:
                    raise InvalidQuery(name, f"no parameter of this model{_listed(properties)}")
        return {name: _typed(texts, properties.get(name, {})) for name, texts in query.items()}


def _listed(names: Mapping[str, Any]) -> str:
    return f"; it has {', '.join(names)}" if names else ""


def _typed(texts: Sequence[str], schema: Mapping[str, Any]) -> Any:
    types = schema.get("type", ())
    types = (types,) if isinstance(types, str) else tuple(types)
    if "array" in types and not (len(texts) == 1 and texts[0].startswith("[")):
        items = schema.get("items", {})
        return [_typed([text], items if isinstance(items, dict) else {}) for text in texts]
    text = texts[-1]  # of a repeated name the last counts, as in JSON
    if types == ("string",) or ("enum" in schema and text in schema["enum"]):
        return text
    try:
        return _decode(text.encode())
    except (ValueError, RecursionError):
        return text


def _faults(validator: Any, value: Any, name: str) -> list[tuple[str, str]]:
    found = (fault for error in validator.iter_errors(value) for fault in _in_words(error))
    return [(pointer_to([name, *path]), words[:MAX_WORDS]) for path, words in islice(found, MAX_PLACES)]


def _in_words(error: jsonschema_rs.ValidationError) -> Iterator[tuple[list[str | int], str]]:
    """Where and why. Of alternatives, what is wrong in the only one whose type fits; else why none does."""
    kind = error.kind
    if not isinstance(kind, (Kind.AnyOf, Kind.OneOfNotValid)):
        yield error.instance_path, error.message
        return
    near = [
        branch
        for branch in kind.context
        if not any(isinstance(one.kind, Kind.Type) and one.instance_path == error.instance_path for one in branch)
    ]
    if len(near) == 1:
        for one in near[0]:
            yield from _in_words(one)
    else:
        yield error.instance_path, "; or ".join(branch[0].message for branch in near or kind.context if branch)


def _refuse(faults: list[tuple[str, str]]) -> None:
    pointer, detail = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    raise InvalidFields(f"{pointer.lstrip('/').replace('/', '.')}: {detail}{more}", faults)
