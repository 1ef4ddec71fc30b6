"""Tensors: checked against what the model declares, joined only where that mixes nobody's rows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtimes import onnx_writer
from tests.unit.tasks.conftest import Served, served

from forebay.core.errors import InvalidRequest, Misconfigured, ModelFailed, UnsupportedMedia
from forebay.core.model import ModelSpec, TensorSpec
from forebay.core.payload import JSON
from forebay.tasks.tensor_codec import DTYPES, TensorCodec
from forebay.tasks.tensor_input import DATATYPES, read_tensors


def tensors(folder: Path, file: bytes, toml: str = "") -> Served:
    version = folder / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(file)
    (version.parent / "model.toml").write_text(toml)
    return served(folder, "m")


@pytest.fixture
def doubling(tmp_path: Path) -> Served:
    return tensors(tmp_path, onnx_writer.doubling(["batch", 3]))


def x(shape: list[int], data: list[Any], datatype: str = "FP32", name: str = "x") -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}


def y(shape: list[int], data: list[Any], datatype: str = "FP32") -> dict[str, Any]:
    return {"outputs": [{"name": "y", "datatype": datatype, "shape": shape, "data": data}]}


def test_tensors_come_back_doubled_flat_or_nested(doubling: Served) -> None:
    flat, nested = x([2, 3], [1, 2.5, 3, 4, 5, 6]), x([2, 3], [[1, 2.5, 3], [4, 5, 6]])
    assert doubling.answer([flat]) == doubling.answer([nested]) == [y([2, 3], [2, 5, 6, 8, 10, 12])]


def test_jobs_of_equal_shape_share_a_call_and_get_their_own_rows(doubling: Served) -> None:
    values = [x([1, 3], [1, 2, 3]), x([2, 3], [1] * 6), x([1, 3], [4, 5, 6]), x([2, 3], [2] * 6)]
    items = [doubling.codec.decode(json.dumps(value).encode(), JSON, {}) for value in values]
    buckets = [doubling.codec.bucket(item) for item in items]
    assert buckets[0] == buckets[2] != buckets[1] == buckets[3]
    assert doubling.codec.collate([items[0], items[2]])["x"].shape == (2, 3)
    assert doubling.answer(values) == [doubling.answer([value])[0] for value in values]


@pytest.mark.parametrize("shape", [["points", 3], [1, 3], ["", 3], ["batch", 3]])
def test_rows_are_joined_only_along_an_axis_that_is_a_batch(tmp_path: Path, shape: list[int | str]) -> None:
    one = tensors(tmp_path, onnx_writer.doubling(shape))
    items = [one.codec.decode(json.dumps(x([1, 3], [1, 2, 3])).encode(), JSON, {}) for _ in range(2)]
    assert (one.codec.bucket(items[0]) == one.codec.bucket(items[1])) is (shape[0] == "batch")
    assert one.answer([x([1, 3], [1, 2, 3]), x([1, 3], [4, 5, 6])]) == [y([1, 3], [2, 4, 6]), y([1, 3], [8, 10, 12])]


def test_the_operator_decides_where_the_file_does_not_say(tmp_path: Path) -> None:
    value = json.dumps(x([1, 3], [1, 2, 3])).encode()
    joined = tensors(tmp_path / "a", onnx_writer.doubling(["points", 3]), "[options]\nbatched = true").codec
    apart = tensors(tmp_path / "b", onnx_writer.doubling(["batch", 3]), "[options]\nbatched = false").codec
    for codec, equal in ((joined, True), (apart, False)):
        items = [codec.decode(value, JSON, {}) for _ in range(2)]
        assert (codec.bucket(items[0]) == codec.bucket(items[1])) is equal
    with pytest.raises(Misconfigured, match=r"options\.batched is true"):
        tensors(tmp_path / "c", onnx_writer.doubling([1, 3]), "[options]\nbatched = true")


def test_an_output_without_rows_for_everybody_fails_the_batch(doubling: Served) -> None:
    items = [doubling.codec.decode(json.dumps(x([1, 3], [1, 2, 3])).encode(), JSON, {}) for _ in range(2)]
    with pytest.raises(ModelFailed, match=r"options\.batched = false") as failed:
        doubling.codec.encode({"y": np.zeros(3, np.float32)}, items)
    assert failed.value.code == "bad_output"


@pytest.mark.parametrize(
    ("value", "pointer", "fragment"),
    [
        ([], "", "expected"),
        ({"inputs": []}, "", "expected"),
        ({"inputs": [{"name": "x"}]}, "", "shape"),
        ({"inputs": x([1, 3], [1, 2, 3])["inputs"], "id": 1}, "", "unknown field"),
        ({"inputs": x([1, 3], [1, 2, 3])["inputs"] * 2}, "/inputs/1/name", "twice"),
        (x([1, 3], [1, 2, 3], name="z"), "/inputs/0/name", "no input 'z'; it has x"),
        (x([1, 3], [1, 2, 3], "FP64"), "/inputs/0/datatype", "the model takes FP32"),
        (x([1, 2], [1, 2]), "/inputs/0/shape", "has shape [1, 2]; the model takes [batch, 3]"),
        (x([3], [1, 2, 3]), "/inputs/0/shape", "the model takes [batch, 3]"),
        (x([-1, 3], [1, 2, 3]), "", "expected"),
        (x([1, 3], [1, 2]), "/inputs/0/data", "has 2 values; its shape [1, 3] needs 3"),
        (x([2, 3], [[1, 2, 3], [1, 2]]), "/inputs/0/data", "must follow shape"),
        (x([1, 3], [[[1, 2, 3]]]), "/inputs/0/data", "must follow shape"),
        (x([1, 3], [1, "2", 3]), "/inputs/0/data", "is FP32"),
        (x([1, 3], [1, True, 3]), "/inputs/0/data", "is FP32"),
        (x([1, 3], [1, None, 3]), "/inputs/0/data", "is FP32"),
        (x([1, 3], [1, math.nan, 3]), "/inputs/0/data", "NaN"),
        (x([1, 3], [1, math.inf, 3]), "/inputs/0/data", "NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_told_where(doubling: Served, value: Any, pointer: str, fragment: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        doubling.task.parse_input(value, doubling.spec)
    assert (refused.value.pointer, refused.value.code) == (pointer, "bad_tensor")
    assert fragment in refused.value.message


def test_a_number_too_large_for_its_type_fails_in_the_codec(doubling: Served) -> None:
    with pytest.raises(InvalidRequest, match="too large for FP32"):
        doubling.answer([x([1, 3], [1, 1e300, 3])])


def test_numbers_that_json_has_not_fail_their_own_job(tmp_path: Path) -> None:
    quotient = onnx_writer.model(
        [onnx_writer.node("Div", ["x", "x"], ["y"])],
        [onnx_writer.tensor_info("x", onnx_writer.FLOAT, ["batch", 1])],
        [onnx_writer.tensor_info("y", onnx_writer.FLOAT, ["batch", 1])],
    )
    fine, failed = tensors(tmp_path, quotient).answer([x([1, 1], [4]), x([1, 1], [0])])
    assert fine == y([1, 1], [1])
    assert isinstance(failed, ModelFailed)
    assert (failed.code, "NaN" in failed.message) == ("bad_output", True)


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "BYTES": ["é", ""],
    "FP": [0.5, -2.0],
    "INT": [-7, 100],
    "UINT": [0, 200],
}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_survives_the_way_in_and_out(datatype: str) -> None:
    shape = (2,)
    spec = ModelSpec(
        name="m", version="1", task="tensor", runtime="onnx", folder="", inputs=(TensorSpec("x", datatype, shape),)
    )
    data = VALUES[datatype.rstrip("0123456789")]
    codec = TensorCodec.of(spec)
    item = codec.decode(json.dumps(x([2], data, datatype)).encode(), JSON, {})
    assert item.arrays["x"].dtype == DTYPES[datatype]
    (payload,) = codec.encode({"y": item.arrays["x"]}, [item])
    assert not isinstance(payload, ModelFailed)
    assert json.loads(payload.data or b"") == y([2], data, datatype)


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("UINT8", -1), ("UINT8", 256), ("INT64", 2**63)])
def test_integers_out_of_range_are_refused(datatype: str, value: int) -> None:
    spec = ModelSpec(name="m", version="1", task="tensor", runtime="onnx", folder="")
    with pytest.raises(InvalidRequest, match=datatype):
        read_tensors(x([1], [value], datatype), spec)


def test_axes_of_one_name_must_be_equal() -> None:
    inputs = (TensorSpec("x", "FP32", ("n", "n")),)
    spec = ModelSpec(name="m", version="1", task="tensor", runtime="onnx", folder="", inputs=inputs)
    assert read_tensors(x([1, 1], [1]), spec)
    with pytest.raises(InvalidRequest, match=r"\[1, 2\]; the model takes \[n, n\]"):
        read_tensors(x([1, 2], [1, 2]), spec)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3), max_size=3),
    st.recursive(st.none() | st.floats() | st.integers() | st.text(max_size=2), st.lists, max_leaves=8),
    st.sampled_from(sorted(DATATYPES)),
)
def test_any_shape_and_data_are_taken_or_refused(shape: list[int], data: Any, datatype: str) -> None:
    spec = ModelSpec(name="m", version="1", task="tensor", runtime="onnx", folder="")
    try:
        (tensor,) = read_tensors(x(shape, data, datatype), spec)
    except InvalidRequest:
        return
    assert len(tensor.data) == math.prod(shape)


def test_a_body_is_json(doubling: Served) -> None:
    value = x([1, 3], [1, 2, 3])
    body = json.dumps(value, indent=1).encode()
    assert doubling.task.parse_body(body, JSON, doubling.spec) == doubling.task.parse_input(value, doubling.spec)
    with pytest.raises(UnsupportedMedia):
        doubling.task.parse_body(body, "text/plain", doubling.spec)
    with pytest.raises(InvalidRequest, match="not JSON"):
        doubling.task.parse_body(b"[" * 100_000, JSON, doubling.spec)
    with pytest.raises(InvalidRequest, match="the body is empty"):
        doubling.task.parse_body(b"", JSON, doubling.spec)


def test_the_schema_names_the_models_own_tensors(doubling: Served) -> None:
    schema = doubling.task.input_schema(doubling.spec)
    assert "x is FP32 [batch, 3]." in schema["description"]
    assert schema["examples"] == [x([1, 3], [0.0, 0.0, 0.0])]
    assert doubling.answer(schema["examples"]) == [y([1, 3], [0.0, 0.0, 0.0])]
