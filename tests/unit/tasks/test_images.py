"""Images of every kind: how they are taken, turned, scaled and normalised; and the hostile ones, which fail alone."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.unit.runtimes import onnx_writer
from tests.unit.tasks.conftest import SAMPLES, Served, served

from forebay.core.errors import InvalidRequest, Misconfigured, UnsupportedMedia
from forebay.tasks.image_codec import DecodedImage

RAW: dict[str, Any] = {"do_resize": True, "size": {"height": 8, "width": 8}, "do_rescale": False, "do_normalize": False}
GRADIENT = Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3))


def write_model(
    folder: Path, preprocessing: dict[str, Any], *, size: int = 8, toml: str = "", element: int = onnx_writer.FLOAT
) -> Path:
    version = folder / "colours" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(onnx_writer.mean_colour("batch", size, element=element))
    (version / "config.json").write_text(json.dumps({"task": "image-classification"}))
    (version / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    (version.parent / "model.toml").write_text('labels = ["red", "green", "blue"]\n' + toml)
    return folder


def colours(folder: Path, preprocessing: dict[str, Any], **more: Any) -> Served:
    return served(write_model(folder, preprocessing, **more), "colours")


@pytest.fixture
def raw(tmp_path: Path) -> Served:
    """Scaled to 8 x 8, the pixels as they are; the logits are the means of the channels."""
    return colours(tmp_path, RAW)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(one: Served, data: bytes, media_type: str = "image/png") -> NDArray[np.float32]:
    """(height, width, 3) as the model sees it."""
    batch = one.codec.collate([one.codec.decode(data, media_type, {})])["pixel_values"]
    array: NDArray[np.float32] = batch[0].transpose(1, 2, 0)
    return array


RED = {
    "L": (Image.new("L", (9, 9), 100), (100, 100, 100)),
    "LA": (Image.new("LA", (9, 9), (100, 3)), (100, 100, 100)),
    "1": (Image.new("1", (9, 9), 1), (255, 255, 255)),
    "P": (Image.new("RGB", (9, 9), (200, 10, 20)).convert("P", palette=Image.Palette.ADAPTIVE), (200, 10, 20)),
    "RGB": (Image.new("RGB", (9, 9), (200, 10, 20)), (200, 10, 20)),
    "RGBA": (Image.new("RGBA", (9, 9), (200, 10, 20, 7)), (200, 10, 20)),
    "I;16": (Image.fromarray(np.full((9, 9), 100 * 256 + 9, np.uint16)), (100, 100, 100)),
}


@pytest.mark.parametrize("mode", RED)
def test_a_png_of_any_mode_becomes_rgb(raw: Served, mode: str) -> None:
    image, colour = RED[mode]
    assert np.unique(pixels(raw, encoded(image, "PNG")).reshape(-1, 3), axis=0).tolist() == [list(colour)]


def test_a_palette_with_transparency_becomes_rgb(raw: Served) -> None:
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    data = encoded(image, "PNG", transparency=b"\xff\x80")
    assert pixels(raw, data)[0, 0].tolist() == [200, 10, 20]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("CMYK", (0, 255, 255, 0), (255, 0, 0)), ("L", 90, (90, 90, 90)), ("RGB", (9, 200, 30), (9, 200, 30))],
)
def test_a_jpeg_of_any_mode_becomes_rgb(raw: Served, mode: str, colour: Any, expected: tuple[int, ...]) -> None:
    data = encoded(Image.new(mode, (16, 16), colour), "JPEG", quality=100)
    assert pixels(raw, data, "image/jpeg")[4, 4].tolist() == pytest.approx(expected, abs=3)


def test_of_an_animation_the_first_frame_counts(raw: Served) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((0, 255, 0), (255, 0, 0))]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(raw, data, "image/webp")[4, 4].tolist() == pytest.approx([0, 255, 0], abs=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(raw: Served, kind: str, orientation: int) -> None:
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.new("RGB", (32, 32))
    upright.paste((255, 255, 255), (0, 0, 16, 8))  # a bar at the top left
    stored = upright.transpose(turned[orientation]) if orientation in turned else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    more: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    seen = pixels(raw, encoded(stored, kind, exif=exif, **more), f"image/{kind.lower()}")
    assert seen == pytest.approx(pixels(raw, encoded(upright, "PNG")), abs=12)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow also warns of what it then gives up on
def test_exif_that_cannot_be_read_is_no_reason_to_fail(raw: Served) -> None:
    data = encoded(Image.new("RGB", (16, 16), (9, 200, 30)), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    assert pixels(raw, data, "image/jpeg").shape == (8, 8, 3)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\x00" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (50_001, 1000)])
def test_a_decompression_bomb_is_refused_by_its_header(raw: Served, size: tuple[int, int]) -> None:
    """The file holds no pixels at all: had anything been decoded, it would be damaged rather than too large."""
    with pytest.raises(InvalidRequest, match="pixels; the limit is 50000000") as refused:
        raw.codec.decode(png_header(*size), "image/png", {})
    assert refused.value.code == "image_too_large"


def test_the_pixel_cap_is_the_models(tmp_path: Path) -> None:
    small = colours(tmp_path, RAW, toml="[limits]\nmax_pixels = 100")
    assert pixels(small, encoded(Image.new("RGB", (10, 10)), "PNG")).shape == (8, 8, 3)
    with pytest.raises(InvalidRequest, match="10 x 11 pixels; the limit is 100"):
        small.codec.decode(encoded(Image.new("RGB", (10, 11)), "PNG"), "image/png", {})


def test_an_image_that_scaling_would_blow_up_is_refused(tmp_path: Path) -> None:
    one = colours(tmp_path, {**RAW, "size": {"shortest_edge": 8}, "do_center_crop": True})
    assert pixels(one, encoded(Image.new("L", (1000, 1)), "PNG")).shape == (8, 8, 3)
    with pytest.raises(InvalidRequest, match="8000000 x 8 pixels") as refused:
        one.codec.decode(encoded(Image.new("L", (1_000_000, 1)), "PNG"), "image/png", {})
    assert refused.value.code == "image_too_large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_that_is_cut_off_is_a_bad_image(raw: Served, kind: str) -> None:
    data = encoded(GRADIENT.resize((200, 200)), kind)
    for length in (len(data) // 2, 20):
        with pytest.raises(InvalidRequest) as refused:
            raw.codec.decode(data[:length], f"image/{kind.lower()}", {})
        assert (refused.value.code, refused.value.message) == ("bad_image", "the image is cut off or damaged")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_formats_outside_the_list_never_reach_their_decoders(raw: Served, kind: str) -> None:
    data = encoded(Image.new("RGB", (16, 16)), kind)
    with pytest.raises(InvalidRequest, match="not a JPEG, PNG or WebP") as refused:
        raw.codec.decode(data, "image/png", {})
    assert refused.value.code == "bad_image"
    with pytest.raises(InvalidRequest, match="not a JPEG, PNG or WebP"):
        raw.task.parse_input(base64.b64encode(data).decode(), raw.spec)


DAMAGE = [encoded(GRADIENT.resize((64, 64)), kind) for kind in ("JPEG", "PNG", "WEBP")]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow also warns of some of what it refuses
@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(DAMAGE),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    cut=st.none() | st.integers(0, 2000),
)
def test_any_damage_fails_as_a_bad_image_or_not_at_all(
    photos: Served, data: bytes, edits: list[tuple[int, int]], cut: int | None
) -> None:
    damaged = bytearray(data)
    for at, value in edits:
        damaged[at % len(damaged)] = value
    with contextlib.suppress(InvalidRequest):  # the one error that is allowed
        item = photos.codec.decode(bytes(damaged[:cut]), "image/png", {})
        assert isinstance(item, DecodedImage)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "bad_image"),
        ("!!!!", "bad_base64"),
        ("AAA", "bad_base64"),
        ("AAAA\n", "bad_base64"),
        ("ÄÖÜ=", "bad_base64"),
        ("AAAA", "bad_image"),
        ("data:image/png,AAAA", "bad_base64"),
        ("data:image/png;base64", "bad_base64"),
        ("data:image/png;base64,****", "bad_base64"),
        (7, "invalid_request"),
        (None, "invalid_request"),
        ({"image": "AAAA"}, "invalid_request"),
    ],
)
def test_what_is_no_base64_of_an_image_is_refused(raw: Served, value: Any, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        raw.task.parse_input(value, raw.spec)
    assert refused.value.code == code


def test_the_media_type_comes_from_the_bytes(raw: Served) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        text = base64.b64encode(encoded(GRADIENT, kind)).decode()
        # Whatever the data URL claims: browsers and users get it wrong, and nothing depends on it.
        payload = raw.task.parse_input(f"data:application/octet-stream;base64,{text}", raw.spec)
        assert payload.media_type == f"image/{kind.lower()}"


@pytest.mark.parametrize("said", ["image/png", "image/jpeg", "image/jpg", "image/gif", "application/octet-stream"])
def test_of_a_raw_body_that_may_be_an_image_the_bytes_decide(raw: Served, said: str) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        assert raw.task.parse_body(encoded(GRADIENT, kind), said, raw.spec).media_type == f"image/{kind.lower()}"


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"GIF89a", "image/gif"), (b"<svg/>", "image/svg+xml"), (encoded(GRADIENT, "PNG"), "text/plain"), (b"", "")],
)
def test_a_raw_body_that_is_no_image_is_refused(raw: Served, body: bytes, said: str) -> None:
    with pytest.raises(UnsupportedMedia) as unsupported:
        raw.task.parse_body(body, said, raw.spec)
    assert unsupported.value.accepted == ("image/jpeg", "image/png", "image/webp")


def test_an_empty_body_is_said_to_be_empty(raw: Served) -> None:
    for said in ("image/jpeg", "image/jpg", "image/heic", "application/octet-stream"):
        with pytest.raises(InvalidRequest, match="the body is empty") as refused:
            raw.task.parse_body(b"", said, raw.spec)
        assert refused.value.code == "bad_image"


@pytest.mark.parametrize("top_k", [0, -1, True, "3", 1.5, None])
def test_a_top_k_that_is_none_is_refused_by_the_codec_too(raw: Served, top_k: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        raw.codec.decode(encoded(GRADIENT, "PNG"), "image/png", {"top_k": top_k})
    assert refused.value.pointer == "/parameters/top_k"


# ------------------------------------------------------------------------------------------------------ preprocessing

BICUBIC = Image.Resampling.BICUBIC


def reference(image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(image.resize(size, BICUBIC), np.float32)


GEOMETRIES: list[tuple[dict[str, Any], NDArray[np.float32]]] = [
    ({"size": {"height": 8, "width": 8}}, reference(GRADIENT, (8, 8))),
    ({"size": 8}, reference(GRADIENT, (8, 8))),
    ({"size": {"shortest_edge": 8}, "do_center_crop": True}, reference(GRADIENT, (12, 8))[:, 2:10]),
    ({"size": 8, "do_center_crop": True}, reference(GRADIENT, (12, 8))[:, 2:10]),
    (
        {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}},
        reference(GRADIENT, (15, 10))[1:9, 3:11],
    ),
    (
        {"size": {"height": 10, "width": 10}, "do_center_crop": True, "crop_size": 8},
        reference(GRADIENT, (10, 10))[1:9, 1:9],
    ),
    (
        {"size": {"height": 8, "width": 8}, "do_center_crop": True, "crop_pct": 0.5},
        np.asarray(GRADIENT.resize((8, 8), BICUBIC, box=(8, 4, 16, 12)), np.float32),
    ),
    (
        {"size": {"shortest_edge": 8}, "crop_pct": 0.8, "image_processor_type": "ConvNextImageProcessor"},
        reference(GRADIENT, (15, 10))[1:9, 3:11],
    ),
    ({"do_resize": False, "do_center_crop": True, "crop_size": 8}, np.asarray(GRADIENT, np.float32)[4:12, 8:16]),
]


@pytest.mark.parametrize(("config", "expected"), GEOMETRIES, ids=[json.dumps(config) for config, _ in GEOMETRIES])
def test_images_are_scaled_and_cut_as_the_config_says(
    tmp_path: Path, config: dict[str, Any], expected: NDArray[np.float32]
) -> None:
    one = colours(tmp_path, {"resample": 3, "do_rescale": False, "do_normalize": False, **config})
    assert pixels(one, encoded(GRADIENT, "PNG")).tolist() == expected.tolist()


def test_an_image_smaller_than_the_crop_gets_a_black_border(tmp_path: Path) -> None:
    one = colours(tmp_path, {**RAW, "do_resize": False, "do_center_crop": True, "crop_size": 8})
    seen = pixels(one, encoded(Image.new("RGB", (4, 4), (255, 255, 255)), "PNG"))
    assert seen[2:6, 2:6].min() == 255
    assert seen.sum() == 16 * 3 * 255


def test_pixels_are_normalised_per_channel(tmp_path: Path) -> None:
    config = {"size": 8, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.1], "rescale_factor": 1 / 255}
    one = colours(tmp_path, config)
    seen = pixels(one, encoded(Image.new("RGB", (8, 8), (255, 102, 51)), "PNG"))
    assert seen[0, 0].tolist() == pytest.approx([1.0, 0.0, -1.0], abs=1e-6)


def test_grey_images_get_the_same_numbers_as_their_rgb_copies(photos: Served) -> None:
    with Image.open(SAMPLES / "cat.jpg") as cat:
        grey = cat.convert("L")
    one, other = (photos.codec.decode(encoded(image, "PNG"), "image/png", {}) for image in (grey, grey.convert("RGB")))
    assert np.array_equal(one.pixels, other.pixels)


def test_a_model_that_takes_bytes_gets_bytes(tmp_path: Path) -> None:
    one = colours(tmp_path, RAW, element=onnx_writer.UINT8)
    seen = pixels(one, encoded(GRADIENT.resize((8, 8)), "PNG"))
    assert seen.dtype == np.uint8
    assert seen.tolist() == np.asarray(GRADIENT.resize((8, 8))).tolist()


def test_a_model_in_half_precision_gets_half_floats(tmp_path: Path) -> None:
    one = colours(tmp_path, {"size": 8, "do_normalize": False}, element=onnx_writer.FLOAT16)
    seen = pixels(one, encoded(Image.new("RGB", (8, 8), (255, 0, 51)), "PNG"))
    assert seen.dtype == np.float16
    assert seen[0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2], abs=1e-3)


def test_the_jpeg_decoder_may_shrink_where_the_operator_says_so(tmp_path: Path) -> None:
    write_model(tmp_path / "exact", RAW)
    write_model(tmp_path / "draft", RAW, toml="[options]\njpeg_draft = true")
    photo = encoded(GRADIENT.resize((480, 320), BICUBIC), "JPEG", quality=95)
    exact, draft = (pixels(served(tmp_path / name, "colours"), photo, "image/jpeg") for name in ("exact", "draft"))
    assert not np.array_equal(exact, draft)
    assert draft == pytest.approx(exact, abs=40)


@pytest.mark.parametrize(
    ("config", "fragment"),
    [
        ({"do_normalize": False}, "the key 'size' is missing"),
        ({"size": {"height": 8}, "do_normalize": False}, "the key 'width' is missing"),
        ({"size": 8}, "the key 'image_mean' is missing"),
        ({"size": 8, "image_mean": [0.5], "image_std": [1, 1, 1]}, "image_mean has 1 numbers, not 3"),
        ({"size": 8, "image_mean": [0, 0, 0], "image_std": [1, 1, 0]}, "image_std holds a 0"),
        ({"size": -1, "do_normalize": False}, "a size is -1"),
        ({"size": 8, "do_normalize": False, "resample": 9}, "resample is 9"),
        ({"size": 8, "do_normalize": False, "crop_pct": 1.5}, "crop_pct is 1.5"),
        ({"size": {"longest_edge": 8}, "do_normalize": False}, "size.longest_edge is not supported"),
        ({"size": 8, "do_normalize": False, "do_pad": True}, "do_pad is not supported"),
        ({"size": 9, "do_normalize": False}, "takes images of 8 x 8, preprocessor_config.json makes 9 x 9"),
        ({"size": {"shortest_edge": 8}, "do_normalize": False}, "gives images no fixed size"),
    ],
)
def test_a_preprocessor_config_that_cannot_be_followed_is_told(
    tmp_path: Path, config: dict[str, Any], fragment: str
) -> None:
    with pytest.raises(Misconfigured, match=r"preprocessor_config\.json") as told:
        colours(tmp_path, config)
    assert fragment in told.value.message


def test_labels_that_are_too_few_are_told(tmp_path: Path) -> None:
    folder = write_model(tmp_path, RAW)
    (folder / "colours" / "model.toml").write_text('labels = ["red", "green"]')
    with pytest.raises(Misconfigured, match="3 classes and 2 labels"):
        served(folder, "colours")
