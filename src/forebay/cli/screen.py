"""What a person sees: plain text when nobody looks, colour and a spinner on a terminal. rich honours NO_COLOR."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 4096
"""Where a program reads, no line is broken and no cell is cut."""

STYLES = {"succeeded": "green", "ready": "green", "failed": "red", "unavailable": "red", "running": "cyan"}


def console(*, err: bool = False) -> Console:
    """A console for standard output, or for standard error with `err`. It takes text as it is: no markup, no emoji."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=True)


def visible(text: str) -> str:
    """`text` with control characters made visible: it may come from a stranger and must not steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)


def styled(word: str) -> Text:
    """A status in its colour."""
    return Text(visible(word), style=STYLES.get(word, ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    made = Table(*columns, box=None, pad_edge=False, header_style="bold", show_edge=False)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(visible(cell)) for cell in row))
    return made


def told(value: Any) -> str:
    """A value in one line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def print_json(value: Any) -> None:
    """To standard output, for programs: valid JSON with nothing around it."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not _is_utf8()) + "\n")


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
