"""What is known of a model without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from forebay.core.batching import BatchPolicy
from forebay.core.retry import RetryPolicy


class ModelLimits(Struct, frozen=True, kw_only=True):
    """`run_timeout_s` bounds the decoding and the predicting of one batch, each; `memory_bytes` bounds one runner.

    `start_within_s` and `retain_s` hold for jobs that do not say; None for no such limit, and for the service's own.
    `cancel_grace_s`: a batch of which nobody wants anything any more may go on for so long before its runner is killed.
    5 s: a handler that looks at its token stops well within, and starting another runner costs about as much.
    `max_queue_length`: so many jobs may wait in each lane, or in those named; else the service's own limit holds.
    """

    run_timeout_s: float = 60.0
    start_within_s: float | None = None
    retain_s: float | None = None
    cancel_grace_s: float = 5.0
    memory_bytes: int = 4 * 1024**3
    max_pixels: int = 50_000_000
    max_queue_length: int | Mapping[str, int] | None = None


class TensorSpec(Struct, frozen=True):
    """A named input or output of a model. `datatype` is the Open Inference Protocol's word (FP32, INT64, BYTES ...).

    `shape` has a number for each fixed axis and a name for each free one ("" if the file gives it none); None where the
    file does not say even how many axes there are.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...] | None = None


class ModelSpec(Struct, frozen=True, kw_only=True):
    """One version of one model, as `model.toml` and the files beside it describe it.

    `folder` is the absolute path of the version's files. `options` are the runtime's own keys (`[onnx]`, `[python]`),
    `task_options` the task's (`[options]`), both checked by the catalog for shape and by their owner for meaning.
    `inputs` and `outputs` are the tensors that the model's file declares; () where it declares none (a Python handler).
    """

    name: str
    version: str
    task: str
    runtime: str
    folder: str
    description: str = ""
    batching: BatchPolicy = BatchPolicy()
    limits: ModelLimits = ModelLimits()
    retry: RetryPolicy = RetryPolicy()
    replicas: int = 1
    labels: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    options: Mapping[str, Any] = {}
    task_options: Mapping[str, Any] = {}


class ModelStatus(StrEnum):
    LOADING = "loading"
    READY = "ready"
    UNAVAILABLE = "unavailable"
