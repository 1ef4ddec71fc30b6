"""Schemas say the truth: their examples fit them, outputs fit them, and what they refuse is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.catalog.options import RUNTIMES_OF_TASK, TASK_OPTIONS
from forebay.core.errors import InvalidRequest, Misconfigured
from forebay.core.model import ModelSpec, TensorSpec
from forebay.core.payload import Payload
from forebay.tasks import TASKS, task

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TENSORS = (TensorSpec("x", "FP32", ("batch", 2)), TensorSpec("n", "INT8", ()))


def spec_of(name: str) -> ModelSpec:
    inputs = TENSORS if name == "tensor" else ()
    return ModelSpec(name="m", version="1", task=name, runtime="onnx", folder="/m", inputs=inputs, outputs=inputs)


def test_the_catalog_knows_the_same_tasks() -> None:
    assert set(TASKS) == set(TASK_OPTIONS) == set(RUNTIMES_OF_TASK)


def test_an_unknown_task_is_told_with_the_known_ones() -> None:
    with pytest.raises(Misconfigured, match="tensor"):
        task("tensors")


@pytest.mark.parametrize("name", TASKS)
def test_examples_fit_their_schemas(name: str) -> None:
    spec, one = spec_of(name), task(name)
    for schema in (one.input_schema(spec), one.output_schema(spec), one.parameters_schema(spec)):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["examples"]
        jsonschema_rs.meta.validate(dict(schema))
        for example in schema["examples"]:
            jsonschema_rs.validate(dict(schema), example)
    for example in one.input_schema(spec)["examples"]:
        assert isinstance(one.parse_input(example, spec), Payload)


@pytest.mark.parametrize("name", TASKS)
@settings(deadline=None)
@given(value=JSON_VALUES)
def test_any_json_is_taken_or_refused_as_invalid(name: str, value: Any) -> None:
    spec, one = spec_of(name), task(name)
    with contextlib.suppress(InvalidRequest):  # the one error that is allowed
        assert one.parse_input(value, spec).data is not None


@pytest.mark.parametrize("name", TASKS)
@settings(deadline=None)
@given(
    body=st.binary(max_size=64),
    media_type=st.sampled_from(
        [
            "image/jpeg",
            "image/png",
            "image/webp",
            "text/plain",
            "text/plain; charset=utf-16",
            "application/json",
            "a/b",
            "",
        ]
    )
    | st.text(max_size=12).map(lambda charset: f"text/plain; charset={charset}"),
)
def test_any_body_is_taken_or_refused_as_invalid(name: str, body: bytes, media_type: str) -> None:
    spec, one = spec_of(name), task(name)
    with contextlib.suppress(InvalidRequest):  # the one error that is allowed
        assert one.parse_body(body, media_type, spec).data is not None
