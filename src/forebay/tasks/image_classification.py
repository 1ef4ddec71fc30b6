"""image-classification: a photo in, labels with scores out, as the Hugging Face pipeline of that name gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forebay.core.errors import InvalidRequest
from forebay.core.model import ModelSpec
from forebay.core.payload import Payload
from forebay.ports.task import Codec, Task
from forebay.tasks.image_input import MEDIA_TYPES, decode_base64, image_body, image_payload
from forebay.tasks.ranking import IMAGE_TOP_K, SCHEMA, labels_schema, top_k_schema

# The middle of examples/samples/cat.jpg at 32 x 32 pixels, as WebP: still an Egyptian cat to image_classification.
EXAMPLE = (
    "UklGRuoAAABXRUJQVlA4IN4AAAAwBgCdASogACAAPu1or1AppaSiqAqpMB2JQBYj4UHS0lFP1scylgyHq+aETrr9UW9gB3tuJEaLLj4AAP2n"
    "LNtBlfmXHaj4OLyNv4WO2wcxE3ntZKiuX1ikuCcFHnuLiXDm9C4xianHeezk2/B2Xsfb7ok7znTilsOICytQVGb33XY1JbpkvOD5wA2pca94"
    "MEgy0RtPeJcCv82AzDj5for74IVhk+ltAUvX2TQoyT2+19Pb3cxJ4RZUWiUY/HKlz/pBHp/elPx2GeTBWHJtms5W+fZtvrUFACPCJp+MKAA="
)


class ImageClassification(Task):
    """Input: base64 of a JPEG, PNG or WebP file, or a data URL; or the file itself as a raw body."""

    name = "image-classification"

    def input_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return {
            "$schema": SCHEMA,
            "title": "Image",
            "description": (
                "A JPEG, PNG or WebP file in base64, or as a data URL (data:image/png;base64,...). "
                f"At most {spec.limits.max_pixels} pixels; of an animation the first frame counts."
            ),
            "type": "string",
            "minLength": 1,
            "examples": [EXAMPLE, f"data:image/webp;base64,{EXAMPLE}"],
        }

    def output_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return labels_schema(spec, example_label="Egyptian cat")

    def parameters_schema(self, spec: ModelSpec) -> Mapping[str, Any]:
        return top_k_schema(IMAGE_TOP_K)

    def media_types(self, spec: ModelSpec) -> Sequence[str]:
        return MEDIA_TYPES

    def parse_input(self, value: Any, spec: ModelSpec) -> Payload:
        if not isinstance(value, str):
            raise InvalidRequest("expected a string with base64 of an image")
        return image_payload(decode_base64(value))

    def parse_body(self, body: bytes, media_type: str, spec: ModelSpec) -> Payload:
        return image_body(body, media_type)

    def codec(self, spec: ModelSpec) -> Codec:
        from forebay.tasks.image_codec import ImageCodec

        return ImageCodec.of(spec)
