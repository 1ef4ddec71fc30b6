"""The onnx runtime: batches that fit the model's own, and files that cannot be loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.runtimes import onnx_writer

from forebay.catalog import read_models
from forebay.core.errors import InvalidRequest, Misconfigured, ModelFailed
from forebay.core.model import ModelSpec
from forebay.runtimes import runtime
from forebay.runtimes.onnx import available_cores

X = np.arange(15, dtype=np.float32).reshape(5, 3)


def spec(folder: Path, content: bytes, *, replicas: int = 1, **options: Any) -> ModelSpec:
    (folder / "model.onnx").write_bytes(content)
    return ModelSpec(
        name="m", version="1", task="tensor", runtime="onnx", folder=str(folder), replicas=replicas, options=options
    )


def load(folder: Path, content: bytes, **more: Any) -> Any:
    return runtime("onnx").load(spec(folder, content, **more))


def test_a_free_batch_axis_takes_any_number_of_rows(tmp_path: Path) -> None:
    model = load(tmp_path, onnx_writer.doubling(["batch", 3]))
    for rows in (1, 2, 5):
        assert np.array_equal(model.predict({"x": X[:rows]}, [])["y"], 2 * X[:rows])


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8])
def test_a_fixed_batch_axis_is_fed_in_parts(tmp_path: Path, size: int) -> None:
    model = load(tmp_path, onnx_writer.doubling([size, 3]))
    assert model.describe()["fixed_batch_size"] == size
    assert np.array_equal(model.predict({"x": X}, [])["y"], 2 * X)


def test_a_batch_in_parts_needs_an_output_with_rows(tmp_path: Path) -> None:
    total = onnx_writer.model(
        [onnx_writer.node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0)],
        [onnx_writer.tensor_info("x", onnx_writer.FLOAT, [2, 3])],
        [onnx_writer.tensor_info("y", onnx_writer.FLOAT, [3])],
    )
    with pytest.raises(ModelFailed, match="no batch axis"):
        load(tmp_path, total).predict({"x": X}, [])


def test_inputs_that_the_model_has_not_are_told(tmp_path: Path) -> None:
    model = load(tmp_path, onnx_writer.doubling(["batch", 3]))
    for feed in ({"z": X}, {}, {"x": X, "z": X}):
        with pytest.raises(InvalidRequest, match="the model takes inputs x, not"):
            model.predict(feed, [])
    assert np.array_equal(model.predict({"x": X, "attention_mask": X}, [])["y"], 2 * X)


def test_what_the_model_raises_passes_through(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="Got invalid dimensions"):
        load(tmp_path, onnx_writer.doubling(["batch", 3])).predict({"x": X[:, :2]}, [])


def test_threads_are_the_cores_divided_by_the_replicas(tmp_path: Path) -> None:
    file = onnx_writer.doubling(["batch", 3])
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))
    assert load(tmp_path, file).describe()["threads"] == available_cores()
    assert load(tmp_path, file, replicas=1000).describe()["threads"] == 1
    assert load(tmp_path, file, replicas=1000, threads=2).describe()["threads"] == 2


def test_a_model_tells_what_it_runs_on(tmp_path: Path) -> None:
    file = onnx_writer.doubling(["batch", 3])
    facts = load(tmp_path, file).describe()
    assert facts["providers"] == ["CPUExecutionProvider"]
    assert (facts["file"], facts["file_bytes"]) == ("model.onnx", len(file))


@pytest.mark.parametrize(
    ("file", "options", "fragment"),
    [
        (b"not a model", {}, "onnxruntime cannot load it; export it again"),
        (onnx_writer.doubling(["batch", 3])[:-20], {}, "onnxruntime cannot load it"),
        (onnx_writer.unary("NoSuchOperator", ["batch", 3]), {}, "onnxruntime cannot load it"),
        (onnx_writer.doubling([1]), {"providers": ["TensorRT"]}, "has no TensorRT here; choose [onnx] providers among"),
        (onnx_writer.doubling([1]), {"file": "other.onnx"}, "m/1/other.onnx: onnxruntime cannot load it"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told(
    tmp_path: Path, file: bytes, options: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(Misconfigured) as told:
        load(tmp_path, file, **options)
    assert fragment in told.value.message


def test_weights_outside_the_folder_are_never_read(tmp_path: Path) -> None:
    """The catalog refuses such a model by its header; here onnxruntime is asked without it."""
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(3, "<f4").tobytes())
    for location in ("../secret.bin", str(tmp_path / "secret.bin")):
        file = onnx_writer.model(
            [onnx_writer.node("Add", ["x", "w"], ["y"])],
            [onnx_writer.tensor_info("x", onnx_writer.FLOAT, ["batch", 3])],
            [onnx_writer.tensor_info("y", onnx_writer.FLOAT, ["batch", 3])],
            [onnx_writer.external_weights("w", [3], location)],
        )
        with pytest.raises(Misconfigured, match="cannot load it"):
            load(folder, file)


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    file = onnx_writer.model(
        [onnx_writer.node("Add", ["x", "w"], ["y"])],
        [onnx_writer.tensor_info("x", onnx_writer.FLOAT, ["batch", 3])],
        [onnx_writer.tensor_info("y", onnx_writer.FLOAT, ["batch", 3])],
        [onnx_writer.external_weights("w", [3], "weights.bin")],
    )
    version = tmp_path / "m" / "1"
    version.mkdir(parents=True)
    (version / "weights.bin").write_bytes(np.ones(3, "<f4").tobytes())
    (version / "model.onnx").write_bytes(file)
    model = runtime("onnx").load(read_models(tmp_path).resolve("m"))
    assert np.array_equal(model.predict({"x": X}, [])["y"], X + 1)
