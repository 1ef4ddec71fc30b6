"""Logits to ranked labels."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from forebay.core.errors import Misconfigured, ModelFailed
from forebay.core.model import ModelSpec, TensorSpec
from forebay.core.payload import JSON, Payload

Floats: TypeAlias = NDArray[np.floating[Any]]


class LabelScore(Struct, frozen=True):
    """`truncated` stands only where it is true."""

    label: str
    score: float
    truncated: bool | UnsetType = UNSET


class Ranking:
    """Turns rows of logits into payloads. `problem_type`, Hugging Face's word, decides how logits become scores."""

    def __init__(self, labels: tuple[str, ...], problem_type: str, output: str) -> None:
        self._labels = labels
        self._problem_type = problem_type
        self._output = output

    @classmethod
    def of(cls, spec: ModelSpec, problem_type: str, asked: str | None) -> Ranking:
        """Raises Misconfigured when the model has no such output, or more or fewer classes than labels."""
        output = logits_of(spec, asked)
        classes = output.shape[-1] if output.shape else ""
        if spec.labels and isinstance(classes, int) and classes != len(spec.labels):
            raise Misconfigured(
                f"{spec.name}/{spec.version}: the model has {classes} classes and {len(spec.labels)} labels; "
                "correct labels in model.toml or id2label in config.json"
            )
        return cls(spec.labels, problem_type, output.name)

    def logits(self, outputs: Any, count: int) -> Floats:
        """(count, classes) from what the model gave. Raises ModelFailed with code `bad_output`."""
        logits = outputs.get(self._output)
        if logits is None:
            raise ModelFailed(f"the model gave no output {self._output!r}", code="bad_output")
        if logits.ndim > 2:  # exporters of image models leave axes of size 1, as in (batch, classes, 1, 1)
            logits = logits.reshape(logits.shape[0], -1)
        if logits.ndim != 2 or logits.shape[0] != count:
            raise ModelFailed(
                f"the model gave {self._output!r} of shape {list(logits.shape)} for {count} inputs", code="bad_output"
            )
        return scores(logits.astype(np.float64), self._problem_type)

    def payload(self, row: Floats, top_k: int, truncated: bool = False) -> Payload | ModelFailed:
        if not np.isfinite(row).all():
            return ModelFailed("the model's scores are not finite numbers", code="bad_output")
        best = np.argsort(-row, kind="stable")[:top_k].tolist()
        said = True if truncated else UNSET
        ranked = [LabelScore(self._label(index), float(row[index]), said) for index in best]
        return Payload(media_type=JSON, data=msgspec.json.encode(ranked))

    def _label(self, index: int) -> str:
        return self._labels[index] if index < len(self._labels) else f"LABEL_{index}"


def scores(logits: Floats, problem_type: str) -> Floats:
    """(batch, classes) to the same: softmax, sigmoid or the numbers themselves, as the Hugging Face pipelines choose
    (transformers, pipelines/text_classification.py: one class alone gets a sigmoid, a regression nothing)."""
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification" or logits.shape[1] == 1:
        return np.exp(-np.logaddexp(0.0, -logits))  # 1 / (1 + exp(-x)) without overflow
    with np.errstate(invalid="ignore"):  # inf - inf: found by `payload`, which fails that row alone
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
        return shares


def logits_of(spec: ModelSpec, asked: str | None) -> TensorSpec:
    """The output with the class scores: the one asked for, `logits`, or the only one."""
    by_name = {output.name: output for output in spec.outputs}
    if asked is not None and asked in by_name:
        return by_name[asked]
    if asked is None and "logits" in by_name:
        return by_name["logits"]
    if asked is None and len(spec.outputs) == 1:
        return spec.outputs[0]
    known = ", ".join(by_name) or "none"
    raise Misconfigured(
        f"{spec.name}/{spec.version}: which output holds the scores? The model has {known}; "
        'write output = "..." under [options] in model.toml'
    )
