"""The file that holds the model, and the runtime that it speaks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

HANDLER = "model.py"

# Suffixes of the Hugging Face ONNX layout (transformers.js and optimum write them); the first that exists is taken.
SUFFIXES = {
    "fp32": ("",),
    "fp16": ("_fp16",),
    "bf16": ("_bf16",),
    "int8": ("_int8", "_quantized"),
    "uint8": ("_uint8",),
    "q8": ("_quantized", "_int8"),
    "q4": ("_q4",),
    "q4f16": ("_q4f16",),
    "bnb4": ("_bnb4",),
}


def runtime_of(folder: Path) -> tuple[str, str]:
    """The runtime that the folder's files speak for, and "" or the reason why none does."""
    has_onnx, has_handler = next(_onnx_files(folder), None) is not None, (folder / HANDLER).is_file()
    if has_onnx and has_handler:
        return "", f'holds an ONNX file and {HANDLER}; choose with runtime = "onnx" or runtime = "python"'
    if has_onnx:
        return "onnx", ""
    if has_handler:
        return "python", ""
    return "", f"holds no model; put model.onnx, a Hugging Face ONNX export or {HANDLER} here"


def is_version(folder: Path) -> bool:
    """A model's own folder counts as its version 1 when files of a model lie in it."""
    return (folder / HANDLER).is_file() or next(_onnx_files(folder), None) is not None


def onnx_file(folder: Path, asked: str | None, precision: str | None) -> tuple[str, str]:
    """The ONNX file to load, relative to `folder`, and "" or what is wrong. `asked` and `precision` are from [onnx]."""
    if asked is not None:
        path = Path(asked)
        if path.is_absolute() or ".." in path.parts:
            return "", f"onnx.file: {asked!r} leaves the version's folder; name a file in it"
        if not (folder / path).is_file():
            return "", f"onnx.file: there is no {asked!r}; {_listed(folder)}"
        return asked, ""
    for suffix in SUFFIXES[precision] if precision else ("",):
        for candidate in (f"model{suffix}.onnx", f"onnx/model{suffix}.onnx"):
            if (folder / candidate).is_file():
                return candidate, ""
    found = list(_onnx_files(folder))
    if precision:
        return "", f"onnx.precision: no file for {precision!r}; {_listed(folder)}"
    if len(found) == 1:
        return found[0], ""
    return "", f"onnx.file: holds no model.onnx; {_listed(folder)}"


def _listed(folder: Path) -> str:
    found = list(_onnx_files(folder))
    return f"choose one with [onnx] file: {', '.join(found)}" if found else "put model.onnx here"


def _onnx_files(folder: Path) -> Iterator[str]:
    for place in (folder, folder / "onnx"):
        if place.is_dir():
            yield from sorted(str(path.relative_to(folder)) for path in place.glob("*.onnx") if path.is_file())
