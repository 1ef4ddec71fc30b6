"""Writes tiny ONNX files by hand (onnx.proto3), so that the tests need no exporter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FLOAT, UINT8, INT64, STRING, BOOL, FLOAT16 = 1, 2, 7, 8, 9, 10

Shape = Sequence[int | str]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | Sequence[int]) -> bytes:
    out = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs) + field(4, kind)
    for name, value in attributes.items():
        if isinstance(value, int):
            out += field(5, field(1, name) + field(3, value) + field(20, 2))
        else:
            out += field(5, field(1, name) + b"".join(field(8, one) for one in value) + field(20, 7))
    return out


def tensor_info(name: str, kind: int, shape: Shape) -> bytes:
    axes = b"".join(field(1, field(2, axis) if isinstance(axis, str) else field(1, axis)) for axis in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, axes)))


def weights(name: str, array: NDArray[np.float32]) -> bytes:
    dims = b"".join(field(1, size) for size in array.shape)
    return dims + field(2, FLOAT) + field(8, name) + field(9, array.astype("<f4").tobytes())


def external_weights(name: str, shape: Sequence[int], location: str) -> bytes:
    dims = b"".join(field(1, size) for size in shape)
    return dims + field(2, FLOAT) + field(8, name) + field(13, field(1, "location") + field(2, location)) + field(14, 1)


def model(
    nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes], initializers: Sequence[bytes] = ()
) -> bytes:
    graph = b"".join(field(1, one) for one in nodes) + field(2, "graph")
    graph += b"".join(field(5, one) for one in initializers)
    graph += b"".join(field(11, one) for one in inputs) + b"".join(field(12, one) for one in outputs)
    return field(1, 8) + field(7, graph) + field(8, field(2, 17))


def unary(kind: str, shape: Shape, *, element: int = FLOAT) -> bytes:
    """`y = kind(x)`"""
    return model([node(kind, ["x"], ["y"])], [tensor_info("x", element, shape)], [tensor_info("y", element, shape)])


def doubling(shape: Shape) -> bytes:
    """`y = x + x`"""
    return model([node("Add", ["x", "x"], ["y"])], [tensor_info("x", FLOAT, shape)], [tensor_info("y", FLOAT, shape)])


def mean_colour(batch: int | str, size: int, *, name: str = "pixel_values", element: int = FLOAT) -> bytes:
    """An image classifier of 3 classes: the mean of each channel is its logit. (batch, 3, size, size) -> (batch, 3)."""
    steps = [node("ReduceMean", ["real"], ["logits"], axes=[2, 3], keepdims=0)]
    cast = node("Cast", [name], ["real"], to=FLOAT)
    return model(
        [cast, *steps],
        [tensor_info(name, element, [batch, 3, size, size])],
        [tensor_info("logits", FLOAT, [batch, 3])],
    )


def encoder(table: NDArray[np.float32], *, masked: bool = True, length: int | str = "sequence") -> bytes:
    """Each token's vector is its row of `table`. (batch, length) -> last_hidden_state (batch, length, dim)."""
    inputs = [tensor_info("input_ids", INT64, ["batch", length])]
    if masked:
        inputs.append(tensor_info("attention_mask", INT64, ["batch", length]))
    return model(
        [node("Gather", ["table", "input_ids"], ["last_hidden_state"], axis=0)],
        inputs,
        [tensor_info("last_hidden_state", FLOAT, ["batch", length, table.shape[1]])],
        [weights("table", table)],
    )
