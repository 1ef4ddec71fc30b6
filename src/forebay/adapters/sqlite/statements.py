"""Many rows in few statements.

apsw gives the interpreter lock up and takes it back around every step of a statement. While the event loop is busy,
taking it back costs up to one switch interval (5 ms), so a hundred single inserts can take half a second where one
insert of a hundred rows takes one interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import apsw

MOST_ROWS = 64
"""Rows of one statement. Larger ones gain little more (measured: 1.27 us a row at 64, 1.24 at 128)."""

Row = Sequence[str | int | float | bytes | None]
T = TypeVar("T")


def write_rows(connection: apsw.Connection, head: str, rows: Sequence[Row], tail: str = "") -> None:
    """`head` ends with VALUES, `tail` goes on after the rows. Inserted rows get ascending rowids in their order."""
    for part in parts(rows):
        connection.execute(_text(head, len(part[0]), len(part), tail), [value for row in part for value in row])


def parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Slices of 64, 32, ... 1: so that only seven texts of each statement exist, and all stay prepared."""
    start, size = 0, MOST_ROWS
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


def values(columns: int, rows: int) -> str:
    """`(?,?),(?,?)`"""
    return ",".join(["(" + ",".join("?" * columns) + ")"] * rows)


@lru_cache(maxsize=256)
def _text(head: str, columns: int, rows: int, tail: str) -> str:
    return f"{head} {values(columns, rows)} {tail}"
