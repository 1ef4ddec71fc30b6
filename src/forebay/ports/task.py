"""What an input and an output mean. A task has a light side, used by the API, and a codec, used in the runner only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from forebay.core.errors import ModelFailed
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload


class Task(ABC):
    """The light side. Imports no numeric library; all methods are quick, pure and thread-safe."""

    name: str

    @abstractmethod
    def input_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        """JSON Schema 2020-12 of `input` in a submitted job, with `examples` that really work."""

    @abstractmethod
    def output_schema(self, spec: ModelSpec) -> Mapping[str, Any]: ...

    @abstractmethod
    def parameters_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        """JSON Schema of `parameters`: an object without additional properties."""

    @abstractmethod
    def media_types(self, spec: ModelSpec) -> Sequence[str]:
        """What a raw body may be, best first."""

    @abstractmethod
    def parse_input(self, value: Any, spec: ModelSpec) -> Payload:
        """Inline payload for an `input` that fits the schema. Raises InvalidRequest (pointer relative to the input)
        for what no schema can say, such as base64 that is none."""

    @abstractmethod
    def parse_body(self, body: bytes, media_type: str, spec: ModelSpec) -> Payload:
        """Inline payload for a raw body. Raises UnsupportedMedia, or InvalidRequest for bytes that are plainly not of
        that type (a wrong magic number, text that is not UTF-8)."""

    @abstractmethod
    def codec(self, spec: ModelSpec) -> Codec:
        """The heavy side, imported on this call. Raises Misconfigured when the model's files do not fit the task."""


class Codec(ABC):
    """Bytes to what a model takes, and back. `decode` runs in a thread beside inference; all of it may be slow."""

    @abstractmethod
    def decode(self, data: bytes, media_type: str, parameters: Mapping[str, Any]) -> Any:
        """One input, preprocessed. Raises InvalidRequest for one that cannot be: it fails alone."""

    def bucket(self, item: Any) -> Hashable:
        """Only items with equal buckets are predicted together. By default all are."""
        return None

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Any:
        """What `Model.predict` takes for these items, all of one bucket: for tensor runtimes a dict of input name to
        array with a leading batch axis, for Python handlers the list itself."""

    @abstractmethod
    def encode(self, outputs: Any, items: Sequence[Any]) -> list[Payload | ModelFailed]:
        """One inline payload, or the error of that input alone, per item from what `Model.predict` gave for them, in
        order. Raises ModelFailed (`bad_output`, `wrong_output_count`) when the batch as a whole does not fit."""
