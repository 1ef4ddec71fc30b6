"""The codec of the tensor task. Imported in the runner only: numpy."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from forebay.catalog.options import TensorOptions, task_options
from forebay.core.errors import InvalidRequest, Misconfigured, ModelFailed
from forebay.core.model import ModelSpec
from forebay.core.payload import JSON, Payload
from forebay.ports.task import Codec
from forebay.tasks.tensor_input import DATATYPES, JsonTensor, read_tensors

DTYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "BYTES": np.object_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}
DATATYPE_OF = {np.dtype(dtype): datatype for datatype, dtype in DTYPES.items()}


class Arrays(Struct, frozen=True):
    """One job's inputs; `rows` is the length of their first axis where that is a batch axis."""

    arrays: dict[str, NDArray[Any]]
    rows: int


class TensorCodec(Codec):
    """Where the first axis is a batch axis, jobs of equal shapes are joined along it and split again; else each job
    runs alone, as joining could mix what belongs to different callers.
    """

    def __init__(self, spec: ModelSpec, *, batched: bool) -> None:
        self._spec = spec
        self._batched = batched

    @classmethod
    def of(cls, spec: ModelSpec) -> TensorCodec:
        """Raises Misconfigured for a model with an input that JSON or numpy cannot express."""
        unfit = [tensor for tensor in spec.inputs if tensor.datatype not in DATATYPES]
        if unfit:
            listed = ", ".join(f"{tensor.name} ({tensor.datatype or 'no tensor'})" for tensor in unfit)
            raise Misconfigured(
                f"{spec.name}/{spec.version}: task tensor cannot express the inputs {listed}; export it with others"
            )
        asked = task_options(spec, TensorOptions).batched
        if asked and not _can_be_batched(spec):
            raise Misconfigured(
                f"{spec.name}/{spec.version}: options.batched is true, but the first axis of some input or output is "
                "fixed; remove the option, or export the model with a free batch axis"
            )
        return cls(spec, batched=_has_batch_axis(spec) if asked is None else asked)

    def decode(self, data: bytes, media_type: str, parameters: Mapping[str, Any]) -> Arrays:
        if media_type.partition(";")[0].strip().lower() != JSON:
            raise InvalidRequest(f"{media_type!r} is not {JSON}", code="unsupported_media_type")
        if parameters:
            raise InvalidRequest("tensor takes no parameters", pointer="/parameters")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise InvalidRequest("the input is not JSON", code="bad_json") from None
        arrays = {tensor.name: _array(tensor) for tensor in read_tensors(value, self._spec)}
        rows = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
        if self._batched and len(rows) != 1:
            raise InvalidRequest("all inputs must have the same length of their first axis", code="bad_tensor")
        return Arrays(arrays, rows.pop())

    def bucket(self, item: Arrays) -> Hashable:
        if not self._batched:
            return id(item)  # unlike every other item that is alive
        return tuple((name, array.shape) for name, array in item.arrays.items())

    def collate(self, items: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
        if len(items) == 1:
            return items[0].arrays
        return {name: np.concatenate([item.arrays[name] for item in items]) for name in items[0].arrays}

    def encode(self, outputs: Any, items: Sequence[Arrays]) -> list[Payload | ModelFailed]:
        if len(items) == 1:
            return [_payload(outputs)]
        total = sum(item.rows for item in items)
        for name, array in outputs.items():
            if array.shape[:1] != (total,):
                message = f"output {name!r} has shape {list(array.shape)} for {total} rows; set options.batched = false"
                raise ModelFailed(message, code="bad_output")
        encoded: list[Payload | ModelFailed] = []
        start = 0
        for item in items:
            end = start + item.rows
            encoded.append(_payload({name: array[start:end] for name, array in outputs.items()}))
            start = end
        return encoded


def _array(tensor: JsonTensor) -> NDArray[Any]:
    dtype = DTYPES[tensor.datatype]
    with np.errstate(over="ignore"):
        array = np.array(tensor.data, dtype).reshape(tensor.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidRequest(f"{tensor.name!r} holds a number too large for {tensor.datatype}", code="bad_tensor")
    return array


def _payload(outputs: Mapping[str, NDArray[Any]]) -> Payload | ModelFailed:
    listed = []
    for name, array in outputs.items():
        datatype = DATATYPE_OF.get(array.dtype)
        if datatype is None:
            return ModelFailed(f"output {name!r} is {array.dtype}, which JSON has not", code="bad_output")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return ModelFailed(f"output {name!r} holds NaN or an infinity, which JSON has not", code="bad_output")
        listed.append(
            {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.reshape(-1).tolist()}
        )
    return Payload(media_type=JSON, data=msgspec.json.encode({"outputs": listed}))


def _can_be_batched(spec: ModelSpec) -> bool:
    tensors = (*spec.inputs, *spec.outputs)
    return all(tensor.shape and isinstance(tensor.shape[0], str) for tensor in tensors)


def _has_batch_axis(spec: ModelSpec) -> bool:
    """Every input and output begins with the same free axis, and its name says that it is a batch.

    An axis named otherwise may be points or time steps, over which a model may sum: joining jobs would mix them.
    """
    if not spec.inputs or not _can_be_batched(spec):
        return False
    names = {str(tensor.shape[0]).lower() for tensor in (*spec.inputs, *spec.outputs) if tensor.shape}
    name = names.pop()
    return not names and ("batch" in name or name in ("n", "b"))
