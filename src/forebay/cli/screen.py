"""What a person sees: plain text when nobody looks, colour and a spinner on a terminal. rich honours NO_COLOR."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 4096
"""No line is broken and no cell is cut: a terminal does that itself, and an id cut short can be copied by nobody."""

COLUMN_GAP = 2

STYLES = {
    "succeeded": "green",
    "ready": "green",
    "delivered": "green",
    "failed": "red",
    "parked": "red",
    "unavailable": "red",
    "running": "cyan",
    "warning": "yellow",
}


def console(*, err: bool = False) -> Console:
    """A console for standard output, or for standard error with `err`. It takes text as it is: no markup, no emoji."""
    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, width=WIDTH, markup=False, highlight=False, emoji=False, soft_wrap=True)


def visible(text: str) -> str:
    """`text` with control characters made visible: it may come from a stranger and must not steer the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else f"\\x{ord(char):02x}" for char in text)


def styled(word: str) -> Text:
    """A status in its colour."""
    return Text(visible(word), style=STYLES.get(word, ""))


def terminal_width() -> int | None:
    """In columns; None where no terminal is, and nothing is too wide."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns_that_fit(needed: Sequence[str], rows: Sequence[Mapping[str, str]], width: int | None) -> list[str]:
    """Of `needed`, the most needed first, as many as go into one line of `width`; the first in any case."""
    if width is None:
        return list(needed)
    taken, left = [needed[0]], width - _widest(needed[0], rows)
    for column in needed[1:]:
        left -= COLUMN_GAP + _widest(column, rows)
        if left < 0:
            break
        taken.append(column)
    return taken


def _widest(column: str, rows: Sequence[Mapping[str, str]]) -> int:
    return max(cell_len(column), *(cell_len(visible(row[column])) for row in rows))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    made = Table(
        *columns, box=None, padding=(0, COLUMN_GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False
    )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(visible(cell)) for cell in row))
    return made


def pairs(values: Iterable[tuple[str, str]]) -> str:
    """One line for each name and value, the values below each other."""
    lines = [(name, visible(value)) for name, value in values]
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)


def told(value: Any) -> str:
    """A value in one line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def print_json(value: Any) -> None:
    """To standard output, for programs: valid JSON with nothing around it."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not _is_utf8()) + "\n")


def _is_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
