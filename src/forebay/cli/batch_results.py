"""The results of a batch, fetched as its lines are done, since a job may be gone again before the last one is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from forebay.core.errors import InvalidRequest, Unavailable

if TYPE_CHECKING:
    from forebay.cli.service import Service

PART_SUFFIX = ".part"


class _Line(Struct, frozen=True):
    line: int
    status: str
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Line).decode


class Results:
    """In OUT.part until all are there, so that a half of them is never taken for the whole. What is in it is not asked
    for again, by a later call of the command neither."""

    def __init__(self, service: Service, batch_id: str, outputs: Path) -> None:
        self._service = service
        self._batch_id = batch_id
        self._outputs = outputs
        self._part = outputs.with_name(outputs.name + PART_SUFFIX)
        self._last = 0
        self.lost = 0
        """Lines that succeeded and whose output nobody has any more."""
        self._go_on()

    def fetch(self, *, whole: bool = False) -> None:
        """What will not change any more: all of it if the batch is finished, which is `whole`, else the lines from
        the first to the first that waits. Raises InvalidRequest if it cannot be written, and as the service does."""
        from forebay.cli.service import FINAL

        try:
            with (
                open(self._part, "ab") as file,
                closing(self._service.batch_results(self._batch_id, after_line=self._last)) as pieces,
            ):
                for text in _lines(pieces):
                    line = _decode(text)
                    # A number is left out by a line that is blank or not visible yet.
                    if not whole and (line.line != self._last + 1 or line.status not in (*FINAL, "rejected")):
                        return
                    file.write(text)
                    self._count(line)
        except OSError as error:
            raise InvalidRequest(f"{self._part} cannot be written: {error.strerror}") from error

    def finish(self) -> None:
        """Under their name."""
        with open(self._part, "ab") as file:
            os.fsync(file.fileno())
        self._part.rename(self._outputs)

    def _go_on(self) -> None:
        """Behind the last whole line that is there."""
        if not self._part.exists():
            return
        try:
            with open(self._part, "r+b") as file:
                end = 0
                for text in file:
                    if not text.endswith(b"\n"):
                        break
                    self._count(_decode(text))
                    end += len(text)
                file.truncate(end)
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidRequest(f"{self._part} holds no results of this batch ({error}); remove it") from error

    def _count(self, line: _Line) -> None:
        self._last = line.line
        self.lost += line.status == "succeeded" and line.error is not None


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    for piece in pieces:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            yield b"".join([*held, end, b"\n"])
            held.clear()
        held.append(rest)
    if any(held):
        raise Unavailable("the results broke off in the middle of a line")
