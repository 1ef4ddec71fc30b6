"""Image files to normalised arrays. Imported in the runner only: Pillow and numpy."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from forebay.catalog.options import ImageOptions, task_options
from forebay.core.errors import InvalidRequest, Misconfigured, ModelFailed
from forebay.core.model import ModelSpec, TensorSpec
from forebay.core.payload import Payload
from forebay.ports.task import Codec
from forebay.tasks.image_classification import MEDIA_TYPES, TOP_K
from forebay.tasks.image_geometry import Preprocessing, read_preprocessing
from forebay.tasks.ranking import top_k_of
from forebay.tasks.scores import Ranking

FORMATS = ("JPEG", "PNG", "WEBP")
"""Pillow knows some 40 formats, among them old ones that few have tested; only these decoders are ever reached."""

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)
"""What Pillow's decoders raise for bytes that are no proper image. MemoryError is not among them."""

DTYPES = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}

Image.MAX_IMAGE_PIXELS = None  # our own cap replaces it: `limits.max_pixels`, checked before Pillow decodes anything


class DecodedImage(Struct, frozen=True):
    """`pixels` (height, width, 3) uint8, scaled and cropped, not yet normalised."""

    pixels: NDArray[np.uint8]
    top_k: int


class ImageCodec(Codec):
    """Decodes, turns by EXIF orientation, scales and cuts in `decode`; normalises straight into the batch in `collate`.

    With `jpeg_draft` the JPEG decoder itself shrinks large photos by 2, 4 or 8, to no less than twice the size needed.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        ranking: Ranking,
        tensor: TensorSpec,
        *,
        max_pixels: int,
        jpeg_draft: bool,
    ) -> None:
        self._preprocessing = preprocessing
        self._ranking = ranking
        self._input = tensor.name
        self._dtype = DTYPES[tensor.datatype]
        self._channels_last = _channels_last(tensor)
        self._max_pixels = max_pixels
        self._draft = jpeg_draft
        self._scale = np.array(preprocessing.scale, np.float32)
        self._shift = np.array(preprocessing.shift, np.float32)

    @classmethod
    def of(cls, spec: ModelSpec) -> ImageCodec:
        """Raises Misconfigured when the model's input and preprocessor_config.json do not fit each other."""
        options = task_options(spec, ImageOptions)
        preprocessing = read_preprocessing(spec.folder)
        tensor = _image_input(spec, preprocessing)
        ranking = Ranking.of(spec, options.problem_type, options.output)
        return cls(preprocessing, ranking, tensor, max_pixels=spec.limits.max_pixels, jpeg_draft=options.jpeg_draft)

    def decode(self, data: bytes, media_type: str, parameters: Mapping[str, Any]) -> DecodedImage:
        if media_type not in MEDIA_TYPES:
            raise InvalidRequest(
                f"{media_type!r} is not one of {', '.join(MEDIA_TYPES)}", code="unsupported_media_type"
            )
        top_k = top_k_of(parameters, TOP_K)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                self._check_size(image)
                return DecodedImage(np.asarray(self._fit(image)), top_k)
        except UnidentifiedImageError:
            raise InvalidRequest("the bytes are not a JPEG, PNG or WebP image", code="bad_image") from None
        except DAMAGED as error:
            raise InvalidRequest(f"the image is damaged ({type(error).__name__})", code="bad_image") from error

    def bucket(self, item: DecodedImage) -> tuple[int, ...]:
        return item.pixels.shape

    def collate(self, items: Sequence[DecodedImage]) -> dict[str, NDArray[Any]]:
        height, width, _ = items[0].pixels.shape
        if self._channels_last:
            batch = np.empty((len(items), height, width, 3), self._dtype)
            views = batch
        else:
            batch = np.empty((len(items), 3, height, width), self._dtype)
            views = batch.transpose(0, 2, 3, 1)
        for view, item in zip(views, items, strict=True):
            if self._dtype is np.uint8:
                view[...] = item.pixels
            else:
                np.multiply(item.pixels, self._scale, out=view, dtype=np.float32, casting="unsafe")
                view += self._shift
        return {self._input: batch}

    def encode(self, outputs: Any, items: Sequence[DecodedImage]) -> list[Payload | ModelFailed]:
        rows = self._ranking.logits(outputs, len(items))
        return [self._ranking.payload(row, item.top_k) for row, item in zip(rows, items, strict=True)]

    def _check_size(self, image: Image.Image) -> None:
        """Known from the header; so a decompression bomb costs nothing."""
        width, height = image.size
        if width * height > self._max_pixels:
            raise InvalidRequest(
                f"the image has {width} x {height} pixels; the limit is {self._max_pixels}", code="image_too_large"
            )

    def _fit(self, image: Image.Image) -> Image.Image:
        plan = self._preprocessing
        if self._draft and image.format == "JPEG":
            height, width = plan.output_size or (plan.shortest_edge or 0,) * 2
            image.draft("RGB", (2 * width, 2 * height))
        rgb = _rgb(_upright(image))
        width, height = rgb.size
        resample = Image.Resampling(plan.resample)
        if plan.crop_first is not None and plan.resize is not None:
            side = plan.crop_first * min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            return rgb.resize(plan.resize[::-1], resample, box=(left, top, left + side, top + side))
        if plan.shortest_edge is not None:
            rgb = rgb.resize(_scaled(width, height, plan.shortest_edge), resample)
        elif plan.resize is not None:
            rgb = rgb.resize(plan.resize[::-1], resample)
        return rgb if plan.crop is None else _centre(rgb, *plan.crop)


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; EXIF that cannot be read says nothing."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except DAMAGED:
        return image
    if orientation not in range(2, 9):
        return image
    image.load()
    return ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> Image.Image:
    """As `Image.convert("RGB")`, which drops transparency, as Hugging Face does; 16-bit grey is scaled, not clipped."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _scaled(width: int, height: int, edge: int) -> tuple[int, int]:
    """(width, height) with the shorter side `edge` (transformers, image_transforms.get_resize_output_image_size)."""
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """Cut from the centre, rounding as transformers' image_transforms.center_crop does; zeros where it is smaller."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _image_input(spec: ModelSpec, preprocessing: Preprocessing) -> TensorSpec:
    where = f"{spec.name}/{spec.version}"
    found = ", ".join(f"{one.name} {one.datatype} {one.shape}" for one in spec.inputs)
    if len(spec.inputs) != 1 or spec.inputs[0].datatype not in DTYPES or len(spec.inputs[0].shape or ()) != 4:
        raise Misconfigured(
            f"{where}: image-classification needs a model with one input of 4 axes, FP32, FP16 or UINT8; "
            f'this one has {found}; use task = "tensor"'
        )
    tensor = spec.inputs[0]
    if preprocessing.output_size is None:
        raise Misconfigured(
            f"{where}: preprocessor_config.json gives images no fixed size; set do_resize or do_center_crop"
        )
    shape = tensor.shape or ()
    axes = shape[1:3] if _channels_last(tensor) else shape[2:]
    for wanted, given in zip(axes, preprocessing.output_size, strict=True):
        if isinstance(wanted, int) and wanted != given:
            raise Misconfigured(
                f"{where}: the model takes images of {axes[0]} x {axes[1]}, preprocessor_config.json makes "
                f"{preprocessing.output_size[0]} x {preprocessing.output_size[1]}; correct size or crop_size"
            )
    return tensor


def _channels_last(tensor: TensorSpec) -> bool:
    shape = tensor.shape or ()
    return shape[-1] == 3 and shape[1] != 3
