"""A model with its codec and its runtime, asked as the runner asks it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from forebay.catalog import read_models
from forebay.core.errors import ModelFailed
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.runtime import ItemContext
from forebay.ports.task import Codec
from forebay.runtimes import runtime
from forebay.tasks import task

ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "examples" / "samples"


class Served:
    """One model, from inputs as clients send them to outputs as they get them."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.task = task(spec.task)
        self.codec: Codec = self.task.codec(spec)
        self.model = runtime(spec.runtime).load(spec)

    def answer(self, values: Sequence[Any], parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Outputs, or ModelFailed, of one batch of `input` values."""
        return self.answer_payloads([self.task.parse_input(value, self.spec) for value in values], parameters)

    def answer_payloads(self, payloads: Sequence[Payload], parameters: Mapping[str, Any] | None = None) -> list[Any]:
        items = [self.codec.decode(one.data or b"", one.media_type, parameters or {}) for one in payloads]
        buckets: dict[Any, list[int]] = {}
        for index, item in enumerate(items):
            buckets.setdefault(self.codec.bucket(item), []).append(index)
        answers: dict[int, Any] = {}
        for members in buckets.values():
            chosen = [items[index] for index in members]
            contexts = [
                ItemContext(job_id=str(index), attempt=1, parameters=parameters or {}, canceled=Event())
                for index in members
            ]
            encoded = self.codec.encode(self.model.predict(self.codec.collate(chosen), contexts), chosen)
            answers |= zip(members, encoded, strict=True)
        return [_plain(answers[index]) for index in range(len(items))]


def _plain(encoded: Payload | ModelFailed) -> Any:
    if isinstance(encoded, ModelFailed):
        return encoded
    assert encoded.media_type == "application/json"
    return json.loads(encoded.data or b"")


def served(folder: Path, name: str, trusted: tuple[str, ...] = ()) -> Served:
    catalog = read_models(folder, trusted)
    assert catalog.problems == {}
    return Served(catalog.resolve(name))


@pytest.fixture(scope="session")
def photos() -> Served:
    return served(ROOT / "models", "image_classification")


@pytest.fixture(scope="session")
def sentences() -> Served:
    return served(ROOT / "models", "text_classification")
