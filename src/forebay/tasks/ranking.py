"""What the classification tasks share on their light side: `top_k` in, `[{"label", "score"}]` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forebay.core.errors import InvalidRequest
from forebay.core.model import ModelSpec

SCHEMA = "https://json-schema.org/draft/2020-12/schema"
NO_PARAMETERS: Mapping[str, Any] = {
    "$schema": SCHEMA,
    "title": "Parameters",
    "type": "object",
    "additionalProperties": False,
    "examples": [{}],
}
IMAGE_TOP_K = 5
TEXT_TOP_K = 1
"""The defaults of the Hugging Face pipelines image-classification and text-classification."""
MAX_TOP_K = 1_000_000


def top_k_schema(default: int) -> Mapping[str, Any]:
    return {
        "$schema": SCHEMA,
        "title": "Parameters",
        "type": "object",
        "properties": {
            "top_k": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_TOP_K,
                "default": default,
                "description": "How many labels to return, best first; all of them if there are fewer.",
            }
        },
        "additionalProperties": False,
        "examples": [{"top_k": 3}],
    }


def top_k_of(parameters: Mapping[str, Any], default: int) -> int:
    """The parameter, checked again, since a job need not come through the API."""
    top_k = parameters.get("top_k", default)
    if not isinstance(top_k, int) or isinstance(top_k, bool) or not 1 <= top_k <= MAX_TOP_K:
        raise InvalidRequest(f"top_k must be a whole number from 1 to {MAX_TOP_K}", pointer="/parameters/top_k")
    return top_k


def labels_schema(spec: ModelSpec, *, example_label: str, extra: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Of the output. `extra` are further properties of an entry, none of them required."""
    label: dict[str, Any] = {"type": "string"}
    if 0 < len(spec.labels) <= 20:
        label["enum"] = list(dict.fromkeys(spec.labels))
    shown = example_label if example_label in spec.labels or not spec.labels else spec.labels[0]
    return {
        "$schema": SCHEMA,
        "title": "Labels",
        "description": "The most probable labels, best first.",
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "properties": {"label": label, "score": {"type": "number"}, **(extra or {})},
            "required": ["label", "score"],
            "additionalProperties": False,
        },
        "examples": [[{"label": shown, "score": 0.72}]],
    }
