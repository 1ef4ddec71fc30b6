"""preprocessor_config.json: how an image becomes numbers, in Hugging Face's terms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from forebay.core.errors import Misconfigured

FILE = "preprocessor_config.json"


class Preprocessing(Struct, frozen=True, kw_only=True):
    """The steps, in order. Sizes are (height, width) in pixels.

    `crop_first`: cut the centred square whose side is this part of the shorter side.
    `shortest_edge`: scale so that the shorter side has this length; else `resize`: to exactly this size.
    `crop`: cut this size from the centre, zeros where the image is smaller.
    Last, per channel R, G, B: `pixel * scale + shift`.
    """

    crop_first: float | None = None
    shortest_edge: int | None = None
    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    resample: int = 3
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of every image afterwards; None if images keep sizes of their own."""
        return self.crop or self.resize

    @property
    def keeps_values(self) -> bool:
        """Pixels stay 0 to 255."""
        return all(factor == 1 for factor in self.scale) and not any(self.shift)


def read_preprocessing(folder: str) -> Preprocessing:
    """Raises Misconfigured naming the key that is missing, wrong or not known here."""
    path = Path(folder) / FILE
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        message = f"{FILE} cannot be read ({error.strerror}); copy it from where the model comes from"
        raise Misconfigured(message) from error
    except ValueError as error:
        raise Misconfigured(f"{FILE} is not JSON; copy it again from where the model comes from") from error
    if not isinstance(config, dict):
        raise Misconfigured(f"{FILE} is not a JSON object; copy it again from where the model comes from")
    try:
        return _preprocessing(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise Misconfigured(f"{FILE}: {_reason(error)}; see preprocessor_config.json of a similar model") from error


def _reason(error: Exception) -> str:
    return f"the key {error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    if config.get("do_pad"):
        raise ValueError("do_pad is not supported, write false")
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    scale, shift = _colours(config)
    resample = int(config.get("resample", 2))
    if resample not in range(6):
        raise ValueError(f"resample is {resample}, not one of Pillow's filters 0 to 5")
    do_crop = bool(config.get("do_center_crop", False))
    crop = _size(config["crop_size"] if "crop_size" in config else config["size"]) if do_crop else None
    fraction = float(config["crop_pct"]) if config.get("crop_pct") is not None else None
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f"crop_pct is {fraction}, not in (0, 1]")
    colours = Preprocessing(resample=resample, scale=scale, shift=shift)
    if not config.get("do_resize", True):
        return replace(colours, crop=crop)
    edge = _shortest_edge(config["size"], do_crop)
    if edge is not None and fraction is not None and kind.startswith("ConvN"):
        # ConvNextImageProcessor: small images are scaled and cropped, from 384 on squeezed into the square.
        if edge >= 384:
            return replace(colours, resize=(edge, edge))
        return replace(colours, shortest_edge=int(edge / fraction), crop=(edge, edge))
    if edge is not None:
        return replace(colours, shortest_edge=edge, crop=crop)
    if do_crop and fraction is not None and "crop_size" not in config:
        # The evaluation crop of EfficientNet and timm, done in one pass with the scaling.
        return replace(colours, crop_first=fraction, resize=_size(config["size"]))
    return replace(colours, resize=_size(config["size"]), crop=crop)


def _colours(config: Mapping[str, Any]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(pixel * factor - mean) / std as one multiplication and one addition."""
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    if not config.get("do_normalize", True):
        return (factor, factor, factor), (0.0, 0.0, 0.0)
    mean, std = _three(config, "image_mean"), _three(config, "image_std")
    if 0 in std:
        raise ValueError("image_std holds a 0")
    scale = (factor / std[0], factor / std[1], factor / std[2])
    return scale, (-mean[0] / std[0], -mean[1] / std[1], -mean[2] / std[2])


def _three(config: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    values = [float(value) for value in config[key]]
    if len(values) != 3:
        raise ValueError(f"{key} has {len(values)} numbers, not 3 (for R, G, B)")
    return values[0], values[1], values[2]


def _shortest_edge(size: Any, do_crop: bool) -> int | None:
    """Old files write one number, which meant the shorter side where a crop follows and a square elsewhere."""
    if isinstance(size, dict):
        if "longest_edge" in size:
            raise ValueError("size.longest_edge is not supported, write size.height and size.width")
        return _pixels(size["shortest_edge"]) if "shortest_edge" in size else None
    return _pixels(size) if do_crop else None


def _size(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return _pixels(size["shortest_edge"]), _pixels(size["shortest_edge"])
        return _pixels(size["height"]), _pixels(size["width"])
    if isinstance(size, list) and len(size) == 2:
        return _pixels(size[0]), _pixels(size[1])
    return _pixels(size), _pixels(size)


def _pixels(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= 8192:
        raise ValueError(f"a size is {value!r}, not a whole number of pixels from 1 to 8192")
    return value
