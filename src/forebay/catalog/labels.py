"""The names of a model's classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forebay.catalog.hugging_face import labels_of
from forebay.catalog.manifest import MANIFEST

DEFAULT_FILE = "labels.txt"


def read_labels(
    model: Path,
    version: Path,
    asked: tuple[str, ...] | str | None,
    config: Mapping[str, Any],
    say: Callable[[Path, str], None],
) -> tuple[str, ...]:
    """The operator's, else those of config.json, else the lines of labels.txt; () if there are none.

    `asked` is a list or the name of a file in the version's folder or the model's. Calls `say` for a file that is not
    there or not text.
    """
    if isinstance(asked, tuple):
        return asked
    if asked is None:
        labels = labels_of(config)
        if labels or not (version / DEFAULT_FILE).is_file():
            return labels
        asked = DEFAULT_FILE
    if not re.fullmatch(r"[\w-][\w.-]*", asked):
        say(model / MANIFEST, f"labels: {asked!r} is not the name of a file in the version's folder; write one")
        return ()
    for path in (version / asked, model / asked):
        if path.is_file():
            return _lines(path, say)
    say(model / MANIFEST, f"labels: there is no {asked!r} beside the model; put it there or list the labels")
    return ()


def _lines(path: Path, say: Callable[[Path, str], None]) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        say(path, f"cannot be read ({error.strerror}); give the service's user the right to read it")
    except UnicodeDecodeError:
        say(path, "is not UTF-8 text; save it as UTF-8, one label a line")
    else:
        return tuple(text.rstrip("\n").split("\n"))
    return ()
