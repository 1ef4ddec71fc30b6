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
from forebay.tasks.image_geometry import Preprocessing, read_preprocessing
from forebay.tasks.image_input import MEDIA_TYPES, sniff
from forebay.tasks.ranking import IMAGE_TOP_K, top_k_of
from forebay.tasks.scores import Ranking

FORMATS = ("JPEG", "PNG", "WEBP")
"""Pillow knows some 40 formats, among them old ones that few have tested; only these decoders are ever reached."""

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)
"""What Pillow's decoders raise for bytes that are no proper image. MemoryError is not among them."""

CUT_OFF = "the image is cut off or damaged"

DTYPES = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}

Image.MAX_IMAGE_PIXELS = None  # our own cap replaces it: `limits.max_pixels`, checked before Pillow decodes anything


class DecodedImage(Struct, frozen=True):
    """`pixels` uint8, scaled and cropped, not yet normalised: (3, height, width), or (height, width, 3) for a model
    that wants its channels last."""

    pixels: NDArray[np.uint8]
    top_k: int


class ImageCodec(Codec):
    """Decodes, turns by EXIF orientation, scales and cuts in `decode`; normalises straight into the batch in `collate`.

    With `jpeg_draft` the JPEG decoder itself shrinks large photos by 2, 4 or 8, to no less than twice the size needed.
    Measured with image_classification on 84 photos of 600 to 3000 pixels: 8.6 ms of processor time instead of 18.5 at 4
    times the size of the samples; every best label the same, scores up to 0.046 apart. Since answers change, it is off.
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
        top_k = top_k_of(parameters, IMAGE_TOP_K)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                self._check_size(*image.size)  # from the header alone, so that a decompression bomb costs nothing
                pixels = np.asarray(self._fit(image))
        except UnidentifiedImageError:
            said = "the bytes are not a JPEG, PNG or WebP image" if sniff(data) is None else CUT_OFF
            raise InvalidRequest(said, code="bad_image") from None
        except DAMAGED as error:
            raise InvalidRequest(CUT_OFF, code="bad_image") from error
        # Here and not in `collate`, which the model waits for: the arithmetic there is twice as fast on whole planes.
        return DecodedImage(pixels if self._channels_last else np.ascontiguousarray(pixels.transpose(2, 0, 1)), top_k)

    def bucket(self, item: DecodedImage) -> tuple[int, ...]:
        return item.pixels.shape

    def collate(self, items: Sequence[DecodedImage]) -> dict[str, NDArray[Any]]:
        batch = np.empty((len(items), *items[0].pixels.shape), self._dtype)
        for row, item in zip(batch, items, strict=True):
            self._normalise(item.pixels, row)
        return {self._input: batch}

    def encode(self, outputs: Any, items: Sequence[DecodedImage]) -> list[Payload | ModelFailed]:
        rows = self._ranking.logits(outputs, len(items))
        return [self._ranking.payload(row, item.top_k) for row, item in zip(rows, items, strict=True)]

    def _normalise(self, pixels: NDArray[np.uint8], row: NDArray[Any]) -> None:
        if self._dtype is np.uint8:
            row[...] = pixels
            return
        plan = self._preprocessing
        for channel in range(3):
            at = (..., channel) if self._channels_last else channel
            np.multiply(pixels[at], np.float32(plan.scale[channel]), out=row[at], casting="same_kind")
            row[at] += np.float32(plan.shift[channel])

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise InvalidRequest(
                f"the image has {width} x {height} pixels; the limit is {self._max_pixels}", code="image_too_large"
            )

    def _fit(self, image: Image.Image) -> Image.Image:
        if self._draft and image.format == "JPEG":
            needed = self._draft_edge()
            image.draft("RGB", (needed, needed))
        scaled = self._scaled(_plain(_upright(image)))
        return scaled if scaled.mode == "RGB" else scaled.convert("RGB")

    def _draft_edge(self) -> int:
        """Twice the length that the shorter side is scaled to: so the resampling filter still has the last word."""
        plan = self._preprocessing
        edge = plan.shortest_edge or max(plan.resize or plan.crop or (0,))
        return int(2 * edge / (plan.crop_first or 1))

    def _scaled(self, image: Image.Image) -> Image.Image:
        plan = self._preprocessing
        width, height = image.size
        resample = Image.Resampling(plan.resample)
        if plan.crop_first is not None and plan.resize is not None:
            side = plan.crop_first * min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            return image.resize(plan.resize[::-1], resample, box=(left, top, left + side, top + side))
        if plan.shortest_edge is not None:
            size = _shortest(width, height, plan.shortest_edge)
            self._check_size(*size)  # a line of a million pixels would otherwise become a wall
            image = image.resize(size, resample)
        elif plan.resize is not None:
            image = image.resize(plan.resize[::-1], resample)
        return image if plan.crop is None else _centre(image, *plan.crop)


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


def _plain(image: Image.Image) -> Image.Image:
    """RGB, or 8-bit grey, which scales three times as fast and becomes the same RGB later.

    As `Image.convert("RGB")`, which drops transparency, as Hugging Face does; but 16-bit grey is scaled, not clipped.
    """
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("P", "PA") and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _shortest(width: int, height: int, edge: int) -> tuple[int, int]:
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
    tensor = spec.inputs[0] if len(spec.inputs) == 1 else TensorSpec("", "")
    shape = tensor.shape or ()
    if tensor.datatype not in DTYPES or len(shape) != 4:
        raise Misconfigured(
            f"{where}: image-classification needs a model with one input of 4 axes, FP32, FP16 or UINT8; "
            f'this one has {found}; use task = "tensor"'
        )
    if preprocessing.output_size is None:
        raise Misconfigured(
            f"{where}: preprocessor_config.json gives images no fixed size; set do_resize or do_center_crop"
        )
    if tensor.datatype == "UINT8" and not preprocessing.keeps_values:
        raise Misconfigured(
            f"{where}: the model takes pixels as they are (UINT8), preprocessor_config.json rescales them; "
            "set do_rescale and do_normalize to false"
        )
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
