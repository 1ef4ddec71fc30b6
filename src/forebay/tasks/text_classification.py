"""text-classification: a text in, labels with scores out, as the Hugging Face pipeline of that name gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forebay.catalog.options import TextClassificationOptions, task_options
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.task import Codec, Task
from forebay.tasks.ranking import TEXT_TOP_K, labels_schema, top_k_schema
from forebay.tasks.text_input import MEDIA_TYPES, parse_text, parse_text_body, text_schema

TRUNCATED = {
    "const": True,
    "description": "Stands in every entry if the text was longer than the model takes, so that its end was not read.",
}


class TextClassification(Task):
    name = "text-classification"

    def input_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return text_schema(_max_chars(spec), "Setup took two minutes and the picture is great.")

    def output_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return labels_schema(spec, example_label="POSITIVE", extra={"truncated": TRUNCATED})

    def parameters_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return top_k_schema(TEXT_TOP_K)

    def media_types(self, spec: ModelSpec) -> Sequence[str]:
        return MEDIA_TYPES

    def parse_input(self, value: Any, spec: ModelSpec) -> Payload:
        return parse_text(value, _max_chars(spec))

    def parse_body(self, body: bytes, media_type: str, spec: ModelSpec) -> Payload:
        return parse_text_body(body, media_type, _max_chars(spec))

    def codec(self, spec: ModelSpec) -> Codec:
        from forebay.tasks.text_codecs import TextClassificationCodec

        return TextClassificationCodec.of(spec)


def _max_chars(spec: ModelSpec) -> int:
    return task_options(spec, TextClassificationOptions).max_chars
