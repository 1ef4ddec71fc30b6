"""Walks the models directory: which models and versions there are, and that nothing in it leads out of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from forebay.catalog.names import MODEL_NAME, VERSION, natural_key

IGNORED = frozenset({"__pycache__", "lost+found"})
"""Not models and not part of one; nor is anything whose name begins with a dot (`.git`, `.cache`, `..data`)."""


def model_folders(root: Path) -> list[Path]:
    """The folders directly below `root`, sorted. Files beside them (a README) are nobody's business."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not _ignored(entry.name))


def version_folders(model: Path) -> list[Path]:
    """`1`, `2`, `10` ... in natural order; the folder itself is not among them."""
    found = [entry for entry in model.iterdir() if entry.is_dir() and VERSION.fullmatch(entry.name)]
    return sorted(found, key=lambda folder: natural_key(folder.name))


def name_problem(name: str) -> str | None:
    if MODEL_NAME.fullmatch(name):
        return None
    allowed = "at most 64 of a-z, 0-9, '.', '_' and '-', the first a letter or a digit"
    return f"the name of a model has {allowed}; rename the folder"


def link_problems(root: Path, model: Path, inside: dict[tuple[int, int], int]) -> list[str]:
    """What in `model` is not a plain file or folder of `root`: a line each.

    A symbolic link may point to another place below `root` (a Hugging Face cache and Kubernetes make such). A file with
    further names (hard links) that are not all below `root` is refused, as whoever owns the other name could change the
    model. `inside` is `names_by_file(root)`.
    """
    problems = []
    seen: set[Path] = set()
    waiting = [model]
    while waiting:
        path = waiting.pop()
        where = path.relative_to(root)
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(root):
            problems.append(f"{where}: is a link that leaves the models folder; put a copy of the file here instead")
            continue
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode) and real not in seen:
                seen.add(real)
                waiting += sorted((entry for entry in path.iterdir() if not _ignored(entry.name)), reverse=True)
        except OSError as error:
            problems.append(f"{where}: cannot be read ({error.strerror}); remove it or put the file in its place")
            continue
        if stat.S_ISREG(found.st_mode):
            if found.st_nlink > inside.get((found.st_dev, found.st_ino), 0):
                problems.append(
                    f"{where}: has other names (hard links) outside the models folder; put a copy here instead"
                )
        elif not stat.S_ISDIR(found.st_mode):
            problems.append(f"{where}: is neither a file nor a folder; remove it")
    return problems


def names_by_file(root: Path) -> dict[tuple[int, int], int]:
    """How many names below `root` each file has, by device and inode; those in hidden folders count as well."""
    counts: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(root):
        for name in files:
            found = os.lstat(os.path.join(folder, name))
            key = (found.st_dev, found.st_ino)
            counts[key] = counts.get(key, 0) + 1
    return counts


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED
