"""How a framework loads a model and runs it. Used inside the runner process only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from forebay.core.model import ModelSpec


class CancelToken(Protocol):
    """As `threading.Event`."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks until it is set, or for so many seconds; returns whether it is."""


class ItemContext(Struct, frozen=True, kw_only=True):
    """What a handler may know of one input. `canceled` is set once nobody wants its output any more: whatever is then
    given for it is thrown away, so the quickest is the best."""

    job_id: str
    attempt: int
    parameters: Mapping[str, Any]
    canceled: CancelToken


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
