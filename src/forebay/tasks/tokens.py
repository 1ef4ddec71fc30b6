"""Text to token ids and padded batches. Imported in the runner only: tokenizers and numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from tokenizers import Tokenizer

from forebay.core.errors import Misconfigured
from forebay.core.model import ModelSpec
from forebay.tasks.text_input import TextPair

BUCKET_RATIO = 1.5
"""In a bucket no text is longer than this times the shortest, so at most a third of the tokens are padding.

Measured with text_classification on 2 cores, 640 lengths around 27, batches of 32: 820 texts/s, in one bucket 310, in
buckets of equal length 580; buckets 32 tokens wide 750.
"""

DTYPES: dict[str, type[np.generic]] = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}
FEEDS = ("input_ids", "attention_mask", "token_type_ids")


class Tokens(Struct, frozen=True):
    """One text. `truncated` if it was longer than the model takes."""

    ids: list[int]
    type_ids: list[int]
    truncated: bool


class TokenBatches:
    """Tokenises one text at a time and pads lists of them, feeding only the inputs that the model has.

    Batches give the same answers as single texts as long as the model heeds its attention mask; a model without one
    gets texts of equal length only.
    """

    def __init__(
        self, tokenizer: Tokenizer, feeds: dict[str, type[np.generic]], *, pad_id: int, fixed: int | None
    ) -> None:
        self._tokenizer = tokenizer
        self._feeds = feeds
        self._pad = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": 0}
        self._fixed = fixed

    @classmethod
    def of(cls, spec: ModelSpec, max_length: int | None) -> TokenBatches:
        """Raises Misconfigured when tokenizer.json cannot be read or the model takes what a tokenizer has not."""
        path = Path(spec.folder) / "tokenizer.json"
        where = f"{spec.name}/{spec.version}"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for every reason
            raise Misconfigured(f"{where}/tokenizer.json cannot be read ({error}); copy it again") from error
        feeds = {}
        for tensor in spec.inputs:
            if tensor.name not in FEEDS or tensor.datatype not in DTYPES:
                raise Misconfigured(
                    f"{where}: the model takes an input {tensor.name!r} ({tensor.datatype}); a tokenizer gives "
                    f'{", ".join(FEEDS)}; export the model without it or use task = "tensor"'
                )
            feeds[tensor.name] = DTYPES[tensor.datatype]
        if "input_ids" not in feeds:
            raise Misconfigured(f'{where}: the model has no input "input_ids"; export it again or use task = "tensor"')
        fixed = _fixed_length(spec)
        padding, truncation = tokenizer.padding or {}, tokenizer.truncation or {}
        limits = [limit for limit in (max_length, truncation.get("max_length"), fixed) if limit]
        tokenizer.no_padding()
        if limits:
            kept = {key: value for key, value in truncation.items() if key in ("strategy", "direction")}
            tokenizer.enable_truncation(min(limits), **kept)
        pad_id = padding.get("pad_id")
        if pad_id is None:
            pad_id = next(
                (found for name in ("[PAD]", "<pad>") if (found := tokenizer.token_to_id(name)) is not None), 0
            )
        return cls(tokenizer, feeds, pad_id=pad_id, fixed=fixed)

    def tokenize(self, pair: TextPair) -> Tokens:
        found = self._tokenizer.encode(pair.text, pair.text_pair)
        return Tokens(found.ids, found.type_ids, bool(found.overflowing))

    def bucket(self, tokens: Tokens) -> int:
        length = len(tokens.ids)
        if self._fixed is not None:
            return self._fixed
        return length if "attention_mask" not in self._feeds else int(math.log(max(length, 1), BUCKET_RATIO))

    def pad(self, batch: Sequence[Tokens]) -> dict[str, NDArray[Any]]:
        """Arrays (len(batch), longest), padded on the right; or as long as the model's file fixes."""
        longest = self._fixed or max(len(tokens.ids) for tokens in batch) or 1
        arrays = {name: np.full((len(batch), longest), self._pad[name], dtype) for name, dtype in self._feeds.items()}
        for row, tokens in enumerate(batch):
            length = len(tokens.ids)
            arrays["input_ids"][row, :length] = tokens.ids
            if "attention_mask" in arrays:
                arrays["attention_mask"][row, :length] = 1
            if "token_type_ids" in arrays:
                arrays["token_type_ids"][row, :length] = tokens.type_ids
        return arrays


def _fixed_length(spec: ModelSpec) -> int | None:
    """The sequence length that the model's file fixes, if it does."""
    for tensor in spec.inputs:
        if tensor.name == "input_ids" and tensor.shape is not None and len(tensor.shape) == 2:
            return tensor.shape[1] if isinstance(tensor.shape[1], int) else None
    return None
