"""What an ONNX file says of itself: its inputs, outputs and the files that it refers to.

Reads protobuf by hand (onnx.proto3 of ONNX 1.16, field numbers beside the code) since the API shows these facts and
must import neither onnx nor onnxruntime for them. Weights are stepped over, never read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from forebay.core.model import TensorSpec

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

# TensorProto.DataType -> datatype of the Open Inference Protocol V2.
DATATYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}

Field = tuple[int, int | memoryview]


class OnnxFacts(Struct, frozen=True, kw_only=True):
    """`external` are the files with weights that the graph names, as it names them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external: tuple[str, ...]


class NotOnnx(ValueError):
    """The file is not an ONNX model; the message says what it is instead and what to do."""


def read_onnx_facts(path: Path) -> OnnxFacts:
    """Raises NotOnnx, or OSError."""
    with path.open("rb") as file:
        head = file.read(len(LFS_POINTER))
        if not head:
            raise NotOnnx("is empty; copy the model again")
        if head == LFS_POINTER:
            raise NotOnnx("is a Git LFS pointer, not the model; fetch the model with: git lfs pull")
        # Unmapped when the last slice of it is gone; closing it here would fail while a traceback holds one.
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return _model(view)
    except (IndexError, UnicodeDecodeError) as error:
        raise NotOnnx("is not an ONNX file, or is cut off; copy or export the model again") from error


def _model(view: memoryview) -> OnnxFacts:
    graphs = [value for number, value in _fields(view) if number == 7]  # ModelProto.graph
    if len(graphs) != 1:
        raise NotOnnx("is not an ONNX file: it holds no graph; export the model again")
    inputs, outputs = [], []
    weights: set[str] = set()
    external: set[str] = set()
    for number, value in _fields(_message(graphs[0])):
        if number == 11:  # GraphProto.input
            inputs.append(_value_info(_message(value)))
        elif number == 12:  # GraphProto.output
            outputs.append(_value_info(_message(value)))
        elif number == 5:  # GraphProto.initializer
            name, location = _initializer(_message(value))
            weights.add(name)
            if location:
                external.add(location)
    # Before IR version 4 every weight was listed as an input as well.
    return OnnxFacts(
        inputs=tuple(one for one in inputs if one.name not in weights),
        outputs=tuple(outputs),
        external=tuple(sorted(external)),
    )


def _value_info(view: memoryview) -> TensorSpec:
    name, datatype, shape = "", "", None
    for number, value in _fields(view):
        if number == 1:  # ValueInfoProto.name
            name = _text(value)
        elif number == 2:  # ValueInfoProto.type
            for kind, tensor in _fields(_message(value)):
                if kind == 1:  # TypeProto.tensor_type
                    datatype, shape = _tensor_type(_message(tensor))
    return TensorSpec(name, datatype, shape)


def _tensor_type(view: memoryview) -> tuple[str, tuple[int | str, ...] | None]:
    datatype, shape = "", None
    for number, value in _fields(view):
        if number == 1:  # TypeProto.Tensor.elem_type
            datatype = DATATYPES.get(value, "") if isinstance(value, int) else ""
        elif number == 2:  # TypeProto.Tensor.shape
            shape = tuple(_axis(_message(axis)) for kind, axis in _fields(_message(value)) if kind == 1)
    return datatype, shape


def _axis(view: memoryview) -> int | str:
    for number, value in _fields(view):
        if number == 1 and isinstance(value, int):  # dim_value; exporters write 0 or -1 for a free axis, too
            return value if 0 < value < 2**63 else ""
        if number == 2:  # dim_param
            return _text(value)
    return ""


def _initializer(view: memoryview) -> tuple[str, str]:
    """Its name and, if it lies in another file, that file."""
    name, location, is_external = "", "", False
    for number, value in _fields(view):
        if number == 8:  # TensorProto.name
            name = _text(value)
        elif number == 14:  # TensorProto.data_location, 1 is EXTERNAL
            is_external = value == 1
        elif number == 13:  # TensorProto.external_data
            pair = dict(_fields(_message(value)))
            if _text(pair.get(1, b"")) == "location":
                location = _text(pair.get(2, b""))
    return name, location if is_external else ""


def _fields(view: memoryview) -> Iterator[Field]:
    """The fields of one message. Raises IndexError where it ends too early or holds what protobuf does not."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire_type == 2:
            size, at = _varint(view, at)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise IndexError(f"wire type {wire_type}")
        if at + size > len(view) or number == 0:
            raise IndexError("a field ends after its message")
        yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = view[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise IndexError("a number is too long")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise IndexError("a number where a message belongs")
    return value


def _text(value: int | memoryview | bytes) -> str:
    if isinstance(value, int):
        raise IndexError("a number where text belongs")
    return bytes(value).decode()
