"""tensor: named arrays in and out, as the Open Inference Protocol V2 writes them in JSON.

`{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}` in, the same with `outputs` out.
`data` is row-major, flat or nested. Source: KServe, open-inference-protocol, inference_rest.md, "Tensor Data".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from forebay.core.errors import InvalidRequest, UnsupportedMedia
from forebay.core.model import ModelSpec, TensorSpec
from forebay.core.payload import JSON, Payload
from forebay.core.wire import canonical_json
from forebay.ports.task import Codec, Task
from forebay.tasks.ranking import NO_PARAMETERS, SCHEMA
from forebay.tasks.tensor_input import DATATYPES, read_tensors

MEDIA_TYPES = (JSON,)
MAX_EXAMPLE_VALUES = 64


class Tensor(Task):
    name = "tensor"

    def input_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        inputs: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": 64, "items": _tensor_schema(spec.inputs)}
        if spec.inputs:
            inputs |= {"minItems": len(spec.inputs), "maxItems": len(spec.inputs)}
        example = _example("inputs", spec.inputs)
        return {
            "$schema": SCHEMA,
            "title": "Tensors",
            "description": f"Open Inference Protocol V2. {_described(spec.inputs)}",
            "type": "object",
            "properties": {"inputs": inputs},
            "required": ["inputs"],
            "additionalProperties": False,
            **({"examples": [example]} if example else {}),
        }

    def output_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        example = _example("outputs", spec.outputs)
        return {
            "$schema": SCHEMA,
            "title": "Tensors",
            "description": f"Open Inference Protocol V2, data flat and row-major. {_described(spec.outputs)}",
            "type": "object",
            "properties": {"outputs": {"type": "array", "items": _tensor_schema(spec.outputs)}},
            "required": ["outputs"],
            "additionalProperties": False,
            **({"examples": [example]} if example else {}),
        }

    def parameters_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return NO_PARAMETERS

    def media_types(self, spec: ModelSpec) -> Sequence[str]:
        return MEDIA_TYPES

    def parse_input(self, value: Any, spec: ModelSpec) -> Payload:
        read_tensors(value, spec)
        return Payload(media_type=JSON, data=canonical_json(value))

    def parse_body(self, body: bytes, media_type: str, spec: ModelSpec) -> Payload:
        essence = media_type.partition(";")[0].strip().lower()
        if essence != JSON:
            raise UnsupportedMedia(f"{essence!r} is not {JSON}", accepted=MEDIA_TYPES)
        if not body:
            raise InvalidRequest("the body is empty", code="bad_json")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise InvalidRequest("the body is not JSON", code="bad_json") from None
        return self.parse_input(value, spec)

    def codec(self, spec: ModelSpec) -> Codec:
        from forebay.tasks.tensor_codec import TensorCodec

        return TensorCodec.of(spec)


def _tensor_schema(tensors: tuple[TensorSpec, ...]) -> Mapping[str, Any]:
    """Of one tensor; which names belong to which types and shapes, `read_tensors` checks."""
    name: dict[str, Any] = {"type": "string"}
    if tensors:
        name["enum"] = [tensor.name for tensor in tensors]
    return {
        "type": "object",
        "properties": {
            "name": name,
            "datatype": {"enum": sorted({tensor.datatype for tensor in tensors} or DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 32},
            "data": {"type": "array"},
        },
        "required": ["name", "datatype", "shape", "data"],
        "additionalProperties": False,
    }


def _described(tensors: tuple[TensorSpec, ...]) -> str:
    """`x is FP32 [batch, 3].`"""
    return " ".join(f"{one.name} is {one.datatype} {_axes(one)}." for one in tensors)


def _axes(tensor: TensorSpec) -> str:
    if tensor.shape is None:
        return "of any shape"
    return f"[{', '.join(str(axis) if axis != '' else '?' for axis in tensor.shape)}]"


def _example(key: str, tensors: tuple[TensorSpec, ...]) -> Mapping[str, Any] | None:
    """Zeros, with 1 for every free axis; None where that would be too long to read."""
    if not tensors or any(one.shape is None or one.datatype not in DATATYPES for one in tensors):
        return None
    listed = []
    for one in tensors:
        shape = [axis if isinstance(axis, int) else 1 for axis in one.shape or ()]
        count = math.prod(shape)
        if count > MAX_EXAMPLE_VALUES:
            return None
        zero = {"BYTES": "", "BOOL": False}.get(one.datatype, 0.0 if one.datatype.startswith("FP") else 0)
        listed.append({"name": one.name, "datatype": one.datatype, "shape": shape, "data": [zero] * count})
    return {key: listed}
