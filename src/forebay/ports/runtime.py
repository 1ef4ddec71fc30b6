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


class Listener(ABC):
    """Hears what a handler says of one input while it runs, from any thread, and keeps nobody waiting."""

    @abstractmethod
    def progress(self, fraction: float) -> None: ...

    @abstractmethod
    def emit(self, chunk: Any) -> None: ...


class _Nobody(Listener):
    """For a handler that is called by itself, as in its author's tests."""

    def progress(self, fraction: float) -> None:
        pass

    def emit(self, chunk: Any) -> None:
        pass


class ItemContext(Struct, frozen=True, kw_only=True):
    """What a handler may know of one input, and say of it while it runs. `canceled` is set once nobody wants its output
    any more: whatever is then given for it is thrown away, so the quickest is the best."""

    job_id: str
    attempt: int
    parameters: Mapping[str, Any]
    canceled: CancelToken
    listener: Listener = _Nobody()

    def progress(self, fraction: float) -> None:
        """Say how far it is, as often as you like: of words that follow each other quickly only the last is told.

        Raises ValueError for what is no number from 0 to 1, RuntimeError once the input has been answered.
        """
        value = float(fraction)
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"progress is a number from 0 to 1, not {fraction!r}")
        self.listener.progress(value)

    def emit(self, chunk: Any) -> None:
        """Show a piece of output now: a string, bytes (which arrive as `{"base64": "..."}`) or any other JSON value.
        Whoever watches gets all of them, in order; they are no part of the output.

        Raises ModelFailed for what is not JSON (`bad_output`), for a chunk that is too large (`chunk_too_large`) and
        for more than one attempt may emit (`too_much_emitted`), RuntimeError once the input has been answered.
        """
        self.listener.emit(chunk)


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
