"""The options of each runtime and task, and which runtime can serve which task.

These structs are the only description of `[onnx]`, `[python]` and `[options]` in a `model.toml`: the catalog checks
files against them, runtimes and tasks read `ModelSpec.options` and `ModelSpec.task_options` through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from forebay.core.model import ModelSpec

Count = Annotated[int, Meta(ge=1, le=2**53, description="a whole number of at least 1")]
Flag = Annotated[bool, Meta(description="true or false")]
Name = Annotated[str, Meta(min_length=1, description="a name in quotes")]
Names = Annotated[tuple[Name, ...], Meta(min_length=1, description='a list of names such as ["a", "b"]')]

Precision = Annotated[
    Literal["fp32", "fp16", "bf16", "int8", "uint8", "q8", "q4", "q4f16", "bnb4"],
    Meta(description='one of "fp32", "fp16", "bf16", "int8", "uint8", "q8", "q4", "q4f16", "bnb4"'),
]
ProblemType = Annotated[
    Literal["single_label_classification", "multi_label_classification", "regression"],
    Meta(description='one of "single_label_classification", "multi_label_classification", "regression"'),
]
Pooling = Annotated[Literal["mean", "cls", "none"], Meta(description='one of "mean", "cls", "none"')]


class OnnxOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[onnx]`. `file` is relative to the version's folder; `precision` chooses among the files of a Hugging Face one.

    `threads` is by default the number of cores that the process may use, divided by `replicas`. `providers` are
    onnxruntime's names; the first that can run a node does.
    """

    file: Name = "model.onnx"
    precision: Precision | None = None
    threads: Count | None = None
    providers: Names = ("CPUExecutionProvider",)


class PythonOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[python]`. `handler` is module:class, the module a file in the version's folder."""

    handler: Annotated[
        str, Meta(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$", description='module:class, such as "model:Model"')
    ] = "model:Model"


class ImageOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[options]` of image-classification.

    `jpeg_draft` lets the JPEG decoder shrink by 2, 4 or 8 while it decodes: several times faster on large photos, with
    slightly other pixels (docs of the codec have the figures). `output` names the tensor with the class scores.
    """

    jpeg_draft: Flag = False
    problem_type: ProblemType = "single_label_classification"
    output: Name | None = None


class TextOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[options]` that every text task has.

    `max_length` is in tokens, by default the least of what tokenizer and model say; what is longer is cut, and the
    output says so. `max_chars` bounds what a job may send at all, since even text that will be cut must be tokenised
    (about one second for a million characters).
    """

    max_length: Count | None = None
    max_chars: Count = 100_000
    output: Name | None = None


class TextClassificationOptions(TextOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[options]` of text-classification."""

    problem_type: ProblemType = "single_label_classification"


class FeatureExtractionOptions(TextOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[options]` of feature-extraction. `normalize` scales each vector to length 1."""

    pooling: Pooling = "mean"
    normalize: Flag = False


class TensorOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[options]` of tensor. `batched` says whether rows of different jobs may share one call; by default only if the
    model's file names the same free first axis, called like a batch, in every input and output."""

    batched: Flag | None = None


class NoOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[options]` of a task that has none."""


RUNTIME_OPTIONS: Mapping[str, type[Struct]] = {"onnx": OnnxOptions, "python": PythonOptions}

TASK_OPTIONS: Mapping[str, type[Struct]] = {
    "image-classification": ImageOptions,
    "text-classification": TextClassificationOptions,
    "feature-extraction": FeatureExtractionOptions,
    "tensor": TensorOptions,
    "json": NoOptions,
}

RUNTIMES_OF_TASK: Mapping[str, tuple[str, ...]] = {
    "image-classification": ("onnx",),
    "text-classification": ("onnx",),
    "feature-extraction": ("onnx",),
    "tensor": ("onnx",),
    "json": ("python",),
}
"""What a runtime's models take must be what the task's codec makes: dicts of arrays for onnx, any values for python."""

NEEDED_FILES: Mapping[str, tuple[str, ...]] = {
    "image-classification": ("preprocessor_config.json",),
    "text-classification": ("tokenizer.json",),
    "feature-extraction": ("tokenizer.json",),
}

OptionsT = TypeVar("OptionsT", bound=Struct)


def task_options(spec: ModelSpec, kind: type[OptionsT]) -> OptionsT:
    """`spec.task_options` as what the task's code reads."""
    return msgspec.convert(dict(spec.task_options), kind)


def runtime_options(spec: ModelSpec, kind: type[OptionsT]) -> OptionsT:
    """`spec.options` as what the runtime's code reads."""
    return msgspec.convert(dict(spec.options), kind)


def as_mapping(options: Struct) -> dict[str, Any]:
    """Only what differs from the defaults, for a ModelSpec."""
    defaults = type(options)()
    found = msgspec.structs.asdict(options)
    return {key: value for key, value in found.items() if value != getattr(defaults, key)}
