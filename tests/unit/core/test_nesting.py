"""How deep a JSON value is."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.core.nesting import is_deeper


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = {"a": value, "b": "x"} if level % 2 else [2, value]
    return value


@pytest.mark.parametrize("depth", [0, 1, 2, 7, 100])
def test_a_value_is_as_deep_as_arrays_and_objects_stand_within_each_other(depth: int) -> None:
    assert not is_deeper(nested(depth), depth)
    assert depth == 0 or is_deeper(nested(depth), depth - 1)


def test_depth_needs_no_depth_of_ours() -> None:
    assert is_deeper(nested(100_000), 100)
