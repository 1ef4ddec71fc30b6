"""What the files of a Hugging Face folder say: config.json, tokenizer_config.json, the model card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forebay.catalog.options import TASK_OPTIONS

MAX_JSON_BYTES = 16 * 1024 * 1024

# Endings of the class names in `architectures` (transformers, models/auto/modeling_auto.py).
TASK_OF_ARCHITECTURE = {
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
}

# Position tables of these begin behind the padding index (transformers, create_position_ids_from_input_ids).
OFFSET_POSITIONS = frozenset(
    {"camembert", "data2vec-text", "esm", "ibert", "longformer", "mpnet", "roberta", "xlm-roberta"}
)

UNSET_LENGTH = 1_000_000
"""tokenizer_config.json writes 10**30 for "no limit"."""


def read_config(path: Path, mistakes: list[str]) -> Mapping[str, Any]:
    """A JSON object; {} if there is no such file, or with a line in `mistakes` if it is none."""
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            mistakes.append(f"{path.name}: larger than {MAX_JSON_BYTES} bytes, so no such file; copy it again")
            return {}
        value = json.loads(path.read_bytes())
    except OSError as error:
        mistakes.append(f"{path.name}: cannot be read ({error.strerror}); give the service's user the right to read it")
        return {}
    except (ValueError, RecursionError):
        mistakes.append(f"{path.name}: is not JSON; copy it again from where the model comes from")
        return {}
    if not isinstance(value, dict):
        mistakes.append(f"{path.name}: is not a JSON object; copy it again from where the model comes from")
        return {}
    return value


def task_of(folder: Path, config: Mapping[str, Any]) -> tuple[str, str]:
    """The task that the files speak for, and "" or the reason why they speak for none."""
    try:
        named = [config.get("task"), config.get("pipeline_tag"), _model_card_tag(folder)]
    except OSError as error:
        return "", f"README.md cannot be read ({error.strerror})"
    for name in named:
        if isinstance(name, str) and name in TASK_OPTIONS:
            return name, ""
    classes = [name for name in _list(config.get("architectures")) if isinstance(name, str)]
    for name in classes:
        for ending, task in TASK_OF_ARCHITECTURE.items():
            if name.endswith(ending):
                return task, ""
    has_tokenizer = (folder / "tokenizer.json").is_file()
    has_labels = isinstance(config.get("id2label"), dict)
    if (folder / "preprocessor_config.json").is_file() and has_labels and not has_tokenizer:
        return "image-classification", ""
    # BertModel, not BertForMaskedLM: a bare encoder.
    is_encoder = (folder / "modules.json").is_file() or any(re.fullmatch(r"\w+Model", one) for one in classes)
    if has_tokenizer and is_encoder:
        return "feature-extraction", ""
    if not config and not has_tokenizer:
        return "tensor", ""
    said = f"config.json says {', '.join(classes)}" if classes else "config.json names no architecture"
    return "", f"its task cannot be told from the files ({said})"


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """`id2label` in the order of its ids; () unless the ids are 0, 1, 2 ..."""
    table = config.get("id2label")
    if not isinstance(table, dict):
        return ()
    ordered = [table.get(str(index)) for index in range(len(table))]
    labels = tuple(label for label in ordered if isinstance(label, str))
    return labels if len(labels) == len(ordered) else ()


def options_of(task: str, folder: Path, config: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """Task options that the files imply; what an operator writes under [options] goes before them."""
    found: dict[str, Any] = {}
    if "classification" in task and isinstance(config.get("problem_type"), str):
        found["problem_type"] = config["problem_type"]
    if task in ("text-classification", "feature-extraction"):
        length = _max_length(config, read_config(folder / "tokenizer_config.json", mistakes))
        if length is not None:
            found["max_length"] = length
    return found


def _max_length(config: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> int | None:
    """The most tokens that the model takes, special tokens included."""
    limits = []
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        padding = config.get("pad_token_id")
        offset = (padding if isinstance(padding, int) else 1) + 1
        limits.append(positions - offset if config.get("model_type") in OFFSET_POSITIONS else positions)
    longest = tokenizer.get("model_max_length")
    if isinstance(longest, int) and 0 < longest < UNSET_LENGTH:
        limits.append(longest)
    return min(limits) if limits else None


def _model_card_tag(folder: Path) -> str | None:
    """`pipeline_tag: ...` from the front matter of README.md."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open("rb") as file:
        head = file.read(8192).decode(errors="replace")
    found = re.match(r"---\s*\n(.*?)\n---", head, re.DOTALL)
    tag = re.search(r"^pipeline_tag:\s*[\"']?([a-z-]+)", found.group(1), re.MULTILINE) if found else None
    return tag.group(1) if tag else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
