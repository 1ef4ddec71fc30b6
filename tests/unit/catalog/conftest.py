"""A models folder to write into."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.unit.runtimes import onnx_writer

Write = Callable[[Mapping[str, object]], Path]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def write(models: Path) -> Write:
    """Writes files by their path below the models folder: bytes and text as they are, anything else as JSON."""

    def write_all(files: Mapping[str, object]) -> Path:
        for name, content in files.items():
            path = models / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content))
        return models

    return write_all


@pytest.fixture
def tensor_file() -> bytes:
    return onnx_writer.doubling(["batch", 3])
