"""json: what goes in is what the handler gets, and what it returns is what the client gets."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.core.errors import InvalidRequest, ModelFailed, UnsupportedMedia
from forebay.core.model import ModelSpec
from forebay.core.payload import JSON, TEXT, Payload
from forebay.tasks import task

SPEC = ModelSpec(name="m", version="1", task="json", runtime="python", folder="/m")
TASK = task("json")
CODEC = TASK.codec(SPEC)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def out(*outputs: Any) -> list[Any]:
    encoded = CODEC.encode(list(outputs), list(outputs))
    return [one.code if isinstance(one, ModelFailed) else json.loads(one.data or b"") for one in encoded]


@settings(deadline=None)
@given(JSON_VALUES)
def test_any_value_survives_the_way_in_and_out(value: Any) -> None:
    payload = TASK.parse_input(value, SPEC)
    assert payload.media_type == (TEXT if isinstance(value, str) else JSON)
    assert CODEC.decode(payload.data or b"", payload.media_type, {}) == value
    assert out(value) == [value]


@pytest.mark.parametrize(
    "value", [math.nan, [math.inf], {"a": -math.inf}, [10**5000], "\ud800", {"\ud800": 1}, {1, 2}, b"x"]
)
def test_what_json_has_not_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest):
        TASK.parse_input(value, SPEC)


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> bytes:
        return b"[" * depth + b"]" * depth

    assert TASK.parse_body(nested(64), JSON, SPEC).data == nested(64)
    for depth in (66, 500_000):
        with pytest.raises(InvalidRequest):
            TASK.parse_body(nested(depth), JSON, SPEC)
        with pytest.raises(InvalidRequest):
            CODEC.decode(nested(depth), JSON, {})


def test_a_body_is_json_or_plain_text() -> None:
    assert TASK.parse_body(b' {"a" : 1} ', JSON, SPEC) == Payload(media_type=JSON, data=b'{"a":1}')
    assert TASK.parse_body(b"hello", "text/plain; charset=utf-8", SPEC) == Payload(media_type=TEXT, data=b"hello")
    for body in (b"{", b"NaN", b"\xff"):
        with pytest.raises(InvalidRequest):
            TASK.parse_body(body, JSON, SPEC)
    with pytest.raises(UnsupportedMedia):
        TASK.parse_body(b"a", "image/png", SPEC)
    with pytest.raises(InvalidRequest, match="the body is empty"):
        TASK.parse_body(b"", JSON, SPEC)
    assert TASK.parse_body(b"", TEXT, SPEC) == Payload(media_type=TEXT, data=b"")


def test_arrays_of_numpy_become_lists() -> None:
    assert out({"a": np.arange(2), "b": np.float32(0.5), "c": np.bool_(True)}) == [{"a": [0, 1], "b": 0.5, "c": True}]


def test_an_output_that_is_no_json_fails_alone() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert out(1, math.nan, object(), loop, np.array([np.inf]), "\ud800", 2) == [1, *["bad_output"] * 5, 2]
    assert out(ModelFailed("too short", code="too_short")) == ["too_short"]


@pytest.mark.parametrize("outputs", [None, "ab", {"a": 1}, [1]])
def test_outputs_that_are_not_one_per_input_fail_the_batch(outputs: Any) -> None:
    with pytest.raises(ModelFailed) as failed:
        CODEC.encode(outputs, ["a", "b"])
    assert failed.value.code == "wrong_output_count"
