"""docs/models.md shows every key of model.toml with its true default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forebay.catalog.manifest import Manifest, byte_count
from forebay.catalog.options import OnnxOptions, TextClassificationOptions
from forebay.tasks import TASKS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text()
EXAMPLE = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
SHOWN = tomllib.loads(EXAMPLE)
COMMENTED = tomllib.loads("\n".join(re.findall(r"^# (\w+ = .*)$", EXAMPLE, re.MULTILINE)))


@pytest.mark.parametrize(
    ("table", "defaults"),
    [
        ("batching", Manifest().batching),
        ("limits", Manifest().limits),
        ("retry", Manifest().retry),
        ("onnx", OnnxOptions()),
        ("options", TextClassificationOptions()),
    ],
)
def test_every_key_of_a_table_is_shown_with_its_default(table: str, defaults: Any) -> None:
    real = {
        name: value for name, value in msgspec.json.decode(msgspec.json.encode(defaults)).items() if value is not None
    }
    shown = dict(SHOWN[table])
    if "memory_bytes" in shown:
        shown["memory_bytes"] = byte_count(shown["memory_bytes"])
    assert shown == real
    without_default = {name for name, value in msgspec.to_builtins(defaults).items() if value is None} - {"output"}
    assert without_default <= set(COMMENTED)


def test_every_task_has_its_row() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(TASKS)
