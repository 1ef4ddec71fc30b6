"""How a framework loads a model and runs it. Used inside the runner process only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from forebay.core.model import ModelSpec


class ItemContext(Struct, frozen=True, kw_only=True):
    """What a handler may know of one input."""

    job_id: str
    attempt: int
    parameters: Mapping[str, Any]


class Runtime(ABC):
    """A framework."""

    @abstractmethod
    def load(self, spec: ModelSpec) -> Model:
        """Load the model's files. Raises Misconfigured, naming file and remedy, for a model that cannot be loaded."""


class Model(ABC):
    """A loaded model. Used from one thread."""

    @abstractmethod
    def predict(self, inputs: Any, contexts: list[ItemContext]) -> Any:
        """Run one collated batch (see Codec.collate); `contexts` has one entry per item. What it returns goes to
        Codec.encode. Raises anything: the batch is then run again in parts."""

    def describe(self) -> Mapping[str, Any]:
        """What is worth telling an operator: provider, threads, file size."""
        return {}

    def close(self) -> None:  # noqa: B027 - most models hold nothing to free
        """Free what is held."""
