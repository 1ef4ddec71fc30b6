"""Logits become scores as the Hugging Face pipelines make them; a row that is no numbers fails alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from forebay.core.errors import Misconfigured, ModelFailed
from forebay.core.model import ModelSpec, TensorSpec
from forebay.core.payload import Payload
from forebay.tasks.scores import Ranking, logits_of, scores


def test_softmax_does_not_overflow() -> None:
    found = scores(np.array([[1000.0, 1000.0], [-1000.0, 0.0]]), "single_label_classification")
    assert found.tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_several_labels_may_be_true_at_once() -> None:
    found = scores(np.array([[0.0, 1000.0, -1000.0]]), "multi_label_classification")
    assert found.tolist() == [[0.5, 1.0, 0.0]]


def test_one_class_alone_gets_a_sigmoid_and_a_regression_its_number() -> None:
    assert scores(np.array([[0.0]]), "single_label_classification").tolist() == [[0.5]]
    assert scores(np.array([[3.5]]), "regression").tolist() == [[3.5]]


def rank(logits: list[list[float]], top_k: int = 5) -> list[object]:
    ranking = Ranking(("a", "b", "c"), "single_label_classification", "logits")
    rows = ranking.logits({"logits": np.array(logits, np.float32)}, len(logits))
    found = [ranking.payload(row, top_k) for row in rows]
    return [json.loads(one.data or b"") if isinstance(one, Payload) else one.code for one in found]


def test_a_row_that_is_not_finite_fails_alone() -> None:
    assert rank([[0, 0, 9], [float("nan"), 0, 0], [float("inf"), 0, float("inf")]])[1:] == ["bad_output"] * 2
    assert rank([[0, 0, 9], [float("nan"), 0, 0]])[0] == [
        {"label": "c", "score": pytest.approx(0.99975, abs=1e-4)},
        {"label": "a", "score": pytest.approx(0.00012, abs=1e-4)},
        {"label": "b", "score": pytest.approx(0.00012, abs=1e-4)},
    ]


def test_classes_without_a_label_are_numbered() -> None:
    (ranked,) = rank([[0, 0, 0, 9]], top_k=1)
    assert ranked == [{"label": "LABEL_3", "score": pytest.approx(1, abs=1e-3)}]


@pytest.mark.parametrize("outputs", [{}, {"logits": np.zeros((1, 3))}, {"logits": np.zeros(2)}])
def test_outputs_that_do_not_fit_the_batch_fail_it(outputs: dict[str, object]) -> None:
    with pytest.raises(ModelFailed) as failed:
        Ranking((), "single_label_classification", "logits").logits(outputs, 2)
    assert failed.value.code == "bad_output"


def test_trailing_axes_of_size_one_are_dropped() -> None:
    ranking = Ranking((), "single_label_classification", "logits")
    assert ranking.logits({"logits": np.zeros((2, 3, 1, 1))}, 2).shape == (2, 3)


def spec(*names: str) -> ModelSpec:
    outputs = tuple(TensorSpec(name, "FP32", ("batch", 3)) for name in names)
    return ModelSpec(name="m", version="1", task="t", runtime="onnx", folder="/m", outputs=outputs)


def test_the_output_with_the_scores_is_found_or_asked_for() -> None:
    assert logits_of(spec("a"), None).name == "a"
    assert logits_of(spec("a", "logits"), None).name == "logits"
    assert logits_of(spec("a", "logits"), "a").name == "a"
    for outputs, asked in ((("a", "b"), None), (("a",), "b"), ((), None)):
        with pytest.raises(Misconfigured, match=r"output = \"...\" under \[options\]"):
            logits_of(spec(*outputs), asked)
