"""feature-extraction: a text in, one vector out (or one per token)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forebay.catalog.options import FeatureExtractionOptions, task_options
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.task import Codec, Task
from forebay.tasks.ranking import NO_PARAMETERS, SCHEMA
from forebay.tasks.text_input import MEDIA_TYPES, parse_text, parse_text_body, text_schema


class FeatureExtraction(Task):
    """The Hugging Face pipeline gives the vectors of all tokens, nested in a list; nearly everybody then averages them.

    So `pooling` is "mean" by default, "cls" takes the first token's vector, "none" gives them all. And the output is an
    object, as a list could not say that a text was cut.
    """

    name = "feature-extraction"

    def input_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return text_schema(_options(spec).max_chars, "A pleasant evening in town.")

    def output_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        vector = {"type": "array", "items": {"type": "number"}}
        pooling = _options(spec).pooling
        numbers = [0.12, -0.5, 0.33]
        return {
            "$schema": SCHEMA,
            "title": "Embedding",
            "type": "object",
            "properties": {
                "embedding": {"type": "array", "items": vector} if pooling == "none" else vector,
                "truncated": {
                    "type": "boolean",
                    "description": "The text was longer than the model takes, so its end was not read.",
                },
            },
            "required": ["embedding", "truncated"],
            "additionalProperties": False,
            "examples": [{"embedding": [numbers] if pooling == "none" else numbers, "truncated": False}],
        }

    def parameters_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return NO_PARAMETERS

    def media_types(self, spec: ModelSpec) -> Sequence[str]:
        return MEDIA_TYPES

    def parse_input(self, value: Any, spec: ModelSpec) -> Payload:
        return parse_text(value, _options(spec).max_chars)

    def parse_body(self, body: bytes, media_type: str, spec: ModelSpec) -> Payload:
        return parse_text_body(body, media_type, _options(spec).max_chars)

    def codec(self, spec: ModelSpec) -> Codec:
        from forebay.tasks.text_codecs import FeatureExtractionCodec

        return FeatureExtractionCodec.of(spec)


def _options(spec: ModelSpec) -> FeatureExtractionOptions:
    return task_options(spec, FeatureExtractionOptions)
