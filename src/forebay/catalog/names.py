"""Names of models and versions, their order, and guesses at what a mistyped word was meant to be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[0-9][a-z0-9._-]{0,31}")
"""A folder inside a model's is a version if its name begins with a digit; others (`onnx/`) belong to the files."""


def natural_key(version: str) -> list[tuple[int, int, str]]:
    """Sorts digits as numbers: 2 < 10 < 10.1 < 10.1-rc."""
    parts = re.findall(r"\d+|\D+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or "" when nothing known is like `word`."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
