"""The lines of a body that comes in pieces, and the parts into which a file is settled. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from msgspec import Struct

BOM = b"\xef\xbb\xbf"
"""What some editors put before UTF-8; it is no part of the first line."""

PART_LINES = 400
PART_BYTES = 1024 * 1024
"""A part ends with the line that reaches either: so few that a broken upload repeats little, and that a fact with the
mistakes in all of its lines fits into a record of the log."""

Line = tuple[int, bytes | None]
"""The number of a line, from 1, and its bytes without its end; None for one that is too long."""


class LineReader:
    """Lines end with LF or CRLF, the last one perhaps with nothing. Of a line longer than `most_bytes` nothing is kept.
    Where the pieces begin and end makes no difference."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pieces: list[bytes] = []
        self._too_long = False
        self._number = 0
        self.held_bytes = 0
        """Of the line that has not ended."""

    def feed(self, piece: bytes) -> Iterator[Line]:
        head, *others = piece.split(b"\n")
        self._hold(head)
        for other in others:
            yield self._line()
            self._hold(other)

    def end(self) -> Iterator[Line]:
        """The last line, if the body did not end with a line's end."""
        if self.held_bytes or self._too_long:
            yield self._line()

    def _hold(self, piece: bytes) -> None:
        self.held_bytes += len(piece)
        if self.held_bytes > self._most_bytes + len(b"\r"):
            self._too_long = True
            self._pieces.clear()
            self.held_bytes = 0
        elif piece and not self._too_long:
            self._pieces.append(piece)

    def _line(self) -> Line:
        self._number += 1
        line = b"".join(self._pieces).removesuffix(b"\r")
        if self._number == 1:
            line = line.removeprefix(BOM)
        too_long = self._too_long or len(line) > self._most_bytes
        self._pieces.clear()
        self.held_bytes, self._too_long = 0, False
        return self._number, None if too_long else line


class Part(Struct, frozen=True):
    """Lines that follow each other, settled together."""

    lines: list[Line]

    @property
    def first(self) -> int:
        return self.lines[0][0]

    @property
    def last(self) -> int:
        return self.lines[-1][0]

    def digest(self) -> str:
        """The same for the same bytes in the same lines."""
        digest = hashlib.sha256()
        for _, line in self.lines:
            digest.update(b"too long\n" if line is None else b"%d:%b\n" % (len(line), line))
        return digest.hexdigest()


class Parts:
    """Gathers lines into parts, which depend on the file alone: a copy of it has the same."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self.held_bytes = 0

    def add(self, line: Line) -> Part | None:
        """The part that ends with it, if one does."""
        self._lines.append(line)
        self.held_bytes += len(line[1] or b"")
        return self.end() if len(self._lines) >= PART_LINES or self.held_bytes >= PART_BYTES else None

    def end(self) -> Part | None:
        """What is left, None if nothing is."""
        lines, self._lines, self.held_bytes = self._lines, [], 0
        return Part(lines) if lines else None
