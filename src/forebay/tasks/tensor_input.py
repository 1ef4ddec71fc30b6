"""Checks tensors written in JSON against what the model declares, without numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from forebay.core.errors import InvalidRequest
from forebay.core.model import ModelSpec, TensorSpec

Axis = Annotated[int, Meta(ge=0, le=2**31)]


class JsonTensor(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: Annotated[list[Axis], Meta(max_length=32)]
    data: list[Any]


class JsonTensors(Struct, frozen=True, forbid_unknown_fields=True):
    inputs: Annotated[list[JsonTensor], Meta(min_length=1, max_length=64)]


def _integers(bits: int, *, signed: bool) -> Any:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return list[Annotated[int, Meta(ge=low, le=min(high, 2**63 - 1))]]  # msgspec compares with int64


DATATYPES: Mapping[str, Any] = {
    "BOOL": list[bool],
    "BYTES": list[str],
    "FP16": list[float],
    "FP32": list[float],
    "FP64": list[float],
    "INT8": _integers(8, signed=True),
    "INT16": _integers(16, signed=True),
    "INT32": _integers(32, signed=True),
    "INT64": _integers(64, signed=True),
    "UINT8": _integers(8, signed=False),
    "UINT16": _integers(16, signed=False),
    "UINT32": _integers(32, signed=False),
    "UINT64": _integers(64, signed=False),
}
"""The JSON values that each datatype takes. BF16 is missing: numpy has no such numbers."""


def read_tensors(value: Any, spec: ModelSpec) -> list[JsonTensor]:
    """The tensors in the order of the model's inputs, their data flat. Raises InvalidRequest with the JSON pointer."""
    try:
        found = msgspec.convert(value, JsonTensors).inputs
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidRequest(
            f'expected {{"inputs": [{{"name", "datatype", "shape", "data"}}]}}: {error}', code="bad_tensor"
        ) from None
    by_name: dict[str, JsonTensor] = {}
    known = {tensor.name: tensor for tensor in spec.inputs}
    for index, tensor in enumerate(found):
        at = f"/inputs/{index}"
        if tensor.name in by_name:
            raise InvalidRequest(f"{tensor.name!r} is there twice", pointer=f"{at}/name", code="bad_tensor")
        if known and tensor.name not in known:
            message = f"the model has no input {tensor.name!r}; it has {', '.join(known)}"
            raise InvalidRequest(message, pointer=f"{at}/name", code="bad_tensor")
        by_name[tensor.name] = _checked(tensor, known.get(tensor.name), at)
    missing = [name for name in known if name not in by_name]
    if missing:
        raise InvalidRequest(f"the model also needs {', '.join(missing)}", pointer="/inputs", code="bad_tensor")
    return [by_name[name] for name in known] if known else list(by_name.values())


def _checked(tensor: JsonTensor, wanted: TensorSpec | None, at: str) -> JsonTensor:
    if tensor.datatype not in DATATYPES or (wanted is not None and wanted.datatype not in ("", tensor.datatype)):
        takes = wanted.datatype if wanted is not None and wanted.datatype else ", ".join(DATATYPES)
        message = f"{tensor.name!r} is {tensor.datatype!r}; the model takes {takes}"
        raise InvalidRequest(message, pointer=f"{at}/datatype", code="bad_tensor")
    if wanted is not None and wanted.shape is not None and not _fits(tensor.shape, wanted.shape):
        axes = ", ".join(str(axis) if isinstance(axis, int) else axis or "?" for axis in wanted.shape)
        message = f"{tensor.name!r} has shape {tensor.shape}; the model takes [{axes}]"
        raise InvalidRequest(message, pointer=f"{at}/shape", code="bad_tensor")
    data = _flat(tensor.data, tensor.shape, at)
    count = math.prod(tensor.shape)
    if len(data) != count:
        message = f"{tensor.name!r} has {len(data)} values; its shape {tensor.shape} needs {count}"
        raise InvalidRequest(message, pointer=f"{at}/data", code="bad_tensor")
    try:
        data = msgspec.convert(data, DATATYPES[tensor.datatype])
    except msgspec.ValidationError as error:
        message = f"{tensor.name!r} is {tensor.datatype}: {error}"
        raise InvalidRequest(message, pointer=f"{at}/data", code="bad_tensor") from None
    if tensor.datatype.startswith("FP") and not all(map(math.isfinite, data)):
        message = f"{tensor.name!r} holds NaN or an infinity, which JSON has not"
        raise InvalidRequest(message, pointer=f"{at}/data", code="bad_tensor")
    if tensor.datatype == "BYTES" and not all(map(_is_utf8, data)):
        message = f"{tensor.name!r} holds half of a surrogate pair"
        raise InvalidRequest(message, pointer=f"{at}/data", code="bad_tensor")
    return JsonTensor(tensor.name, tensor.datatype, tensor.shape, data)


def _fits(shape: list[int], wanted: tuple[int | str, ...]) -> bool:
    """Axes of one name must be equal."""
    named: dict[str, int] = {}
    return len(shape) == len(wanted) and all(
        given == axis if isinstance(axis, int) else axis == "" or named.setdefault(axis, given) == given
        for given, axis in zip(shape, wanted, strict=True)
    )


def _flat(data: list[Any], shape: list[int], at: str) -> list[Any]:
    """Nested data must follow the shape, row by row; flat data is given back as it is."""
    if not data or not isinstance(data[0], list):
        return data
    follows = bool(shape) and len(data) == shape[0]
    for length in shape[1:]:
        follows = follows and all(isinstance(row, list) and len(row) == length for row in data)
        if not follows:
            raise InvalidRequest(f"nested data must follow shape {shape}", pointer=f"{at}/data", code="bad_tensor")
        data = [value for row in data for value in row]
    return data


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
