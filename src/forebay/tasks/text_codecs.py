"""The codecs of the text tasks. Imported in the runner only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from forebay.catalog.options import FeatureExtractionOptions, TextClassificationOptions, task_options
from forebay.core.errors import InvalidRequest, Misconfigured, ModelFailed
from forebay.core.model import ModelSpec
from forebay.core.payload import JSON, Payload
from forebay.ports.task import Codec
from forebay.tasks.ranking import TEXT_TOP_K, top_k_of
from forebay.tasks.scores import Floats, Ranking
from forebay.tasks.text_input import read_text
from forebay.tasks.tokens import TokenBatches, Tokens

TOKEN_VECTORS = ("last_hidden_state", "token_embeddings")
TEXT_VECTORS = ("sentence_embedding", "pooler_output")


class Text(Struct, frozen=True):
    tokens: Tokens
    top_k: int


class TextClassificationCodec(Codec):
    def __init__(self, batches: TokenBatches, ranking: Ranking, max_chars: int) -> None:
        self._batches = batches
        self._ranking = ranking
        self._max_chars = max_chars

    @classmethod
    def of(cls, spec: ModelSpec) -> TextClassificationCodec:
        options = task_options(spec, TextClassificationOptions)
        ranking = Ranking.of(spec, options.problem_type, options.output)
        return cls(TokenBatches.of(spec, options.max_length), ranking, options.max_chars)

    def decode(self, data: bytes, media_type: str, parameters: Mapping[str, Any]) -> Text:
        top_k = top_k_of(parameters, TEXT_TOP_K)
        return Text(self._batches.tokenize(read_text(data, media_type, self._max_chars)), top_k)

    def bucket(self, item: Text) -> int:
        return self._batches.bucket(item.tokens)

    def collate(self, items: Sequence[Text]) -> dict[str, NDArray[Any]]:
        return self._batches.pad([item.tokens for item in items])

    def encode(self, outputs: Any, items: Sequence[Text]) -> list[Payload | ModelFailed]:
        rows = self._ranking.logits(outputs, len(items))
        return [
            self._ranking.payload(row, item.top_k, item.tokens.truncated) for row, item in zip(rows, items, strict=True)
        ]


class Embedding(Struct, frozen=True):
    embedding: list[Any]
    truncated: bool


class FeatureExtractionCodec(Codec):
    """`output` holds a vector per token (3 axes) or, where the model pools by itself, one per text (2 axes)."""

    def __init__(self, batches: TokenBatches, output: str, options: FeatureExtractionOptions) -> None:
        self._batches = batches
        self._output = output
        self._options = options

    @classmethod
    def of(cls, spec: ModelSpec) -> FeatureExtractionCodec:
        options = task_options(spec, FeatureExtractionOptions)
        return cls(TokenBatches.of(spec, options.max_length), _vectors_of(spec, options), options)

    def decode(self, data: bytes, media_type: str, parameters: Mapping[str, Any]) -> Tokens:
        if parameters:
            raise InvalidRequest("feature-extraction takes no parameters", pointer="/parameters")
        return self._batches.tokenize(read_text(data, media_type, self._options.max_chars))

    def bucket(self, item: Tokens) -> int:
        return self._batches.bucket(item)

    def collate(self, items: Sequence[Tokens]) -> dict[str, NDArray[Any]]:
        return self._batches.pad(items)

    def encode(self, outputs: Any, items: Sequence[Tokens]) -> list[Payload | ModelFailed]:
        found = outputs.get(self._output)
        if found is None or found.ndim not in (2, 3) or len(found) != len(items):
            raise ModelFailed(f"the model's output {self._output!r} has no vector for each text", code="bad_output")
        return [self._payload(vectors, item) for vectors, item in zip(self._pooled(found, items), items, strict=True)]

    def _pooled(self, found: Floats, items: Sequence[Tokens]) -> list[Floats]:
        if found.ndim == 2:
            return list(found)
        if self._options.pooling == "cls":
            return list(found[:, 0])
        if self._options.pooling == "none":
            return [vectors[: len(item.ids)] for vectors, item in zip(found, items, strict=True)]
        mask = np.zeros(found.shape[:2], np.float32)
        for row, item in enumerate(items):
            mask[row, : len(item.ids)] = 1
        return list(mean_pool(found, mask))

    def _payload(self, vectors: Floats, item: Tokens) -> Payload | ModelFailed:
        if self._options.normalize:
            length = np.linalg.norm(vectors, axis=-1, keepdims=True)
            vectors = vectors / np.maximum(length, 1e-12)  # torch.nn.functional.normalize has the same floor
        if not np.isfinite(vectors).all():
            return ModelFailed("the model's vector holds numbers that are not finite", code="bad_output")
        return Payload(media_type=JSON, data=msgspec.json.encode(Embedding(vectors.tolist(), item.truncated)))


def mean_pool(hidden: Floats, mask: Floats) -> Floats:
    """Average the token vectors of each sequence, leaving out padding.

    hidden (batch, tokens, dim) float32; mask (batch, tokens), 1 for a token, 0 for padding.
    Returns (batch, dim). Raises InvalidRequest if a sequence has no token.
    Source: Reimers and Gurevych 2019, arXiv:1908.10084, section 3.
    """
    counts = mask.sum(axis=1, keepdims=True)
    if not counts.all():
        raise InvalidRequest("a text has no token, so its vectors have no mean", code="empty_text")
    means: Floats = np.einsum("btd,bt->bd", hidden, mask) / counts
    return means


def _vectors_of(spec: ModelSpec, options: FeatureExtractionOptions) -> str:
    """The output to take: the one asked for, else one with a vector per token, else one with a vector per text."""
    names = [output.name for output in spec.outputs]
    if options.output is not None and options.output in names:
        return options.output
    if options.output is None:
        # A file that pools by itself (sentence-transformers) still gives the token vectors beside.
        order = TEXT_VECTORS[:1] + TOKEN_VECTORS if options.pooling == "mean" else TOKEN_VECTORS
        for name in order:
            if name in names:
                return name
        if len(names) == 1:
            return names[0]
    raise Misconfigured(
        f"{spec.name}/{spec.version}: which output holds the vectors? The model has {', '.join(names) or 'none'}; "
        'write output = "..." under [options] in model.toml'
    )
