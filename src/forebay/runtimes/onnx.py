"""ONNX models by onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import structlog
from msgspec import Struct
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from forebay.catalog.options import OnnxOptions, runtime_options
from forebay.core.errors import InvalidRequest, Misconfigured, ModelFailed
from forebay.core.model import ModelSpec
from forebay.ports.runtime import ItemContext, Model, Runtime

log = structlog.get_logger()

LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}

OPTIONAL_INPUTS = frozenset({"attention_mask", "token_type_ids"})
"""A tokenizer makes them for every model; a model without them is not given them."""

Arrays = dict[str, NDArray[Any]]


class Port(Struct, frozen=True):
    """An input or output of a loaded model. An axis is a number where it is fixed and None where it is free."""

    name: str
    type: str
    shape: tuple[int | None, ...]


class OnnxRuntime(Runtime):
    """Loads without custom operator libraries, so a model file is data and cannot bring code of its own.

    onnxruntime itself refuses weights outside the model's folder, and the catalog refuses links that lead there.
    """

    def load(self, spec: ModelSpec) -> Model:
        options = runtime_options(spec, OnnxOptions)
        path = Path(spec.folder) / options.file
        where = f"{spec.name}/{spec.version}/{options.file}"
        available = onnxruntime.get_available_providers()
        missing = [provider for provider in options.providers if provider not in available]
        if missing:
            raise Misconfigured(
                f"{where}: onnxruntime has no {', '.join(missing)} here; "
                f"choose [onnx] providers among {', '.join(available)}"
            )
        threads = options.threads or max(1, available_cores() // spec.replicas)
        try:
            session = onnxruntime.InferenceSession(
                str(path), session_options(threads), providers=list(options.providers)
            )
        except LOAD_ERRORS as error:
            said = str(error).replace(
                f"{spec.folder}{os.sep}", ""
            )  # callers may read it, and paths are not their concern
            raise Misconfigured(
                f"{where}: onnxruntime cannot load it; export it again, or for an older opset. It says: {said}"
            ) from error
        model = OnnxModel(session, threads=threads, file=options.file, file_bytes=path.stat().st_size)
        model.warm_up()
        return model


class OnnxModel(Model):
    """`predict` takes a dict of input name to array with a leading batch axis and gives the same of its outputs.

    A model whose batch axis is fixed in its file is called once per so many rows, the last rows repeated to fill up.
    """

    def __init__(self, session: Any, *, threads: int, file: str, file_bytes: int) -> None:
        self._session = session
        self._threads = threads
        self._file = file
        self._file_bytes = file_bytes
        self.inputs = [_port(one) for one in session.get_inputs()]
        self.outputs = [_port(one) for one in session.get_outputs()]
        self._names = [port.name for port in self.outputs]
        self._fixed = _fixed_batch(self.inputs)

    def predict(self, inputs: Any, contexts: list[ItemContext]) -> Arrays:
        feed = self._feed(inputs)
        rows = {len(array) for array in feed.values() if array.ndim}
        if self._fixed is None or rows == {self._fixed} or len(rows) != 1:
            return self._run(feed)
        return self._run_in_parts(feed, rows.pop(), self._fixed)

    def describe(self) -> Mapping[str, Any]:
        return {
            "framework": f"onnxruntime {onnxruntime.__version__}",
            "providers": self._session.get_providers(),
            "threads": self._threads,
            "file": self._file,
            "file_bytes": self._file_bytes,
            "fixed_batch_size": self._fixed,
        }

    def close(self) -> None:
        self._session = None  # the session frees its memory with its last reference

    def warm_up(self) -> None:
        """One run on zeros: the first run allocates and is several times slower. Free axes get length 1.

        A model that refuses zeros, or these lengths, is none the worse: its first job then pays.
        """
        if not all(port.type in DTYPES for port in self.inputs):
            return
        feed = {
            port.name: _zeros(tuple(1 if axis is None else axis for axis in port.shape), port.type)
            for port in self.inputs
        }
        try:
            self._session.run(self._names, feed)
        except LOAD_ERRORS as error:
            log.info("model.warm_up_skipped", file=self._file, reason=str(error))

    def _run(self, feed: Arrays) -> Arrays:
        return dict(zip(self._names, self._session.run(self._names, feed), strict=True))

    def _run_in_parts(self, feed: Arrays, rows: int, size: int) -> Arrays:
        parts = []
        for start in range(0, rows, size):
            part = {name: array[start : start + size] for name, array in feed.items()}
            short = size - (min(start + size, rows) - start)
            if short:
                part = {name: np.concatenate([array, np.repeat(array[-1:], short, 0)]) for name, array in part.items()}
            parts.append(self._run(part))
        for name in self._names:
            if any(part[name].shape[:1] != (size,) for part in parts):
                raise ModelFailed(f"output {name!r} has no batch axis, so its batch cannot be split", code="bad_output")
        return {name: np.concatenate([part[name] for part in parts])[:rows] for name in self._names}

    def _feed(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """What the model takes of `inputs`. Raises InvalidRequest when names do not fit."""
        wanted = {port.name for port in self.inputs}
        missing = wanted - inputs.keys()
        unknown = inputs.keys() - wanted - OPTIONAL_INPUTS
        if missing or unknown:
            raise InvalidRequest(
                f"the model takes inputs {', '.join(sorted(wanted))}, not {', '.join(sorted(inputs))}",
                code="wrong_inputs",
            )
        return {name: inputs[name] for name in wanted}


def session_options(threads: int) -> Any:
    """Options for one model per process on a CPU, used from one thread, with batches of changing size.

    Measured on 2 cores with the two example models. Threads that do not spin while they wait leave the cores to the
    decoding of the next batch: 250 images/s instead of 217, and 7.5 ms of processor time for each instead of 9.1. The
    arena stays on, since without it a batch of 16 sentences takes 39 ms of processor time instead of 26; it keeps its
    peak, some 450 MB after batches of up to 32 texts of 256 tokens. Memory patterns are for inputs of one shape.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; warnings are about nodes that an optimiser left alone
    return options


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group (cgroup v2, cpu.max).

    In a container with `--cpus 2` on a host of 64 cores the affinity says 64, and 64 threads then wait for each other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _port(node: Any) -> Port:
    shape = tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in node.shape or ())
    return Port(node.name, node.type, shape)


def _fixed_batch(inputs: list[Port]) -> int | None:
    """The number that stands first in the shape of every input, None if any is free or they differ."""
    first = {port.shape[0] if port.shape else None for port in inputs}
    return first.pop() if len(first) == 1 else None


def _zeros(shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    return np.full(shape, "", np.object_) if kind == "tensor(string)" else np.zeros(shape, DTYPES[kind])
