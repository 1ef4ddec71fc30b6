"""What is done of one partition, how far it may be committed, and which attempts were begun. Pure.

Messages of a partition end in any order, but Kafka keeps one offset per group and partition. That offset is the
*watermark*: everything below it is done. What is known beyond it goes into the metadata of the same commit, so that a
new owner of the partition neither repeats what is done nor forgets an attempt.

The metadata is text: `v1;b=<watermark>;s=<states>;r=<runs>`. The runs tell the state of every offset from the watermark
on, as one symbol and, unless it is 1, the length of the run in base 36: `-` done, `.` nothing known, a capital letter
a state of the list: `A` the first, and so on. A state is `<attempt>.<interruptions>`, with `r` behind it while the
attempt runs. So `v1;b=40;s=1.0r,2.1;r=A3-B.2-5` says: 40 to 42 run for the first time, 43 is done, 44 was tried twice
and cut off once, nothing is known of 45 and 46, 47 to 51 are done. `b` repeats the watermark, because tools copy
metadata beside an offset that is not its own (MirrorMaker translates offsets and leaves the metadata).

Similar: Confluent's Parallel Consumer keeps offsets in commit metadata as bit sets or run lengths.
"""

from __future__ import annotations

import re
import string
from bisect import bisect_left, bisect_right
from operator import itemgetter

from msgspec import Struct

LIMIT_BYTES = 3072
"""Of one commit's metadata. Brokers refuse more than `offset.metadata.max.bytes`, by default 4096."""

VERSION = "v1"
DONE = "-"
UNKNOWN = "."
LETTERS = string.ascii_uppercase
DIGITS = string.digits + string.ascii_lowercase

STATE = r"\d{1,9}\.\d{1,9}r?"
WHOLE = re.compile(
    rf"{VERSION};b=(?P<base>\d{{1,19}});s=(?P<states>({STATE}(,{STATE})*)?);r=(?P<runs>([-.A-Z][0-9a-z]*|\({STATE}\)[0-9a-z]*)+)"
)
RUN = re.compile(r"(?P<symbol>[-.A-Z]|\([^)]*\))(?P<length>[0-9a-z]*)")

HEAD_BYTES = 96
"""Of the metadata before the runs: a watermark of 19 digits and eight states. There are seldom more than three."""

LONGEST_RUN = 2**62
MOST_MARKED = 100_000
"""Bounds on what is believed of metadata, so that a damaged one cannot fill the memory."""


class Mark(Struct, frozen=True):
    """How often an attempt was begun, of how many nobody has said how they ended, and whether the last one runs."""

    attempt: int = 0
    interruptions: int = 0
    running: bool = False

    def __str__(self) -> str:
        return f"{self.attempt}.{self.interruptions}{'r' if self.running else ''}"

    def begun(self) -> Mark:
        return Mark(self.attempt + 1, self.interruptions, True)

    def retracted(self) -> Mark:
        return Mark(self.attempt - 1, self.interruptions, False)

    def ended(self) -> Mark:
        return Mark(self.attempt, self.interruptions, False)

    def cut_off(self) -> Mark:
        """As the next owner must see it: whoever ran it has said nothing."""
        return Mark(self.attempt, self.interruptions + self.running, False)


class Tracker:
    """One partition, from the moment it is ours until it is not.

    `start` is the offset to read first. `admit` every offset that is read, in order; then `begin`, `end` and `done` in
    any order. `metadata()` goes with `watermark` into a commit, `Tracker.load` takes them out again.
    """

    def __init__(self, start: int, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._watermark = start
        self._next = start
        self._loaded_end = start  # nothing is known from here on, except of what was admitted since
        self._unfinished = 0
        # What is done beyond the watermark: ranges in order that neither overlap nor touch, each [start, end).
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._marks: dict[int, Mark] = {}

    @classmethod
    def load(cls, offset: int, metadata: str | None, *, limit_bytes: int = LIMIT_BYTES) -> Tracker:
        """What its last owner committed. Attempts that ran then count as cut off. Metadata that is not ours, damaged or
        of another offset is taken for none: then what was done beyond the offset comes again, and nothing is lost."""
        tracker = cls(offset, limit_bytes=limit_bytes)
        try:
            runs = decode(offset, metadata or "")
        except ValueError:
            return tracker
        for first, last, mark in runs:
            if mark is None:
                tracker._add_done(first, last)
            else:
                tracker._marks.update(dict.fromkeys(range(first, last), mark.cut_off()))
            tracker._loaded_end = last
        return tracker

    # ---------------------------------------------------------------------------------------------------------- facts

    @property
    def watermark(self) -> int:
        """What to commit: everything below it is done, and it is not."""
        return self._watermark

    @property
    def next_offset(self) -> int:
        """After the last one admitted. One below it can only come if the log itself was cut."""
        return self._next

    @property
    def unfinished(self) -> int:
        """How many were admitted and are not done."""
        return self._unfinished

    @property
    def done_beyond(self) -> int:
        """How many are done beyond the watermark."""
        return sum(self._ends) - sum(self._starts)

    @property
    def room(self) -> int:
        """How many more may be admitted so that the metadata keeps within its limit, however they end.

        At worst each unfinished offset is a run of its own with a run of done ones behind it. What was loaded of
        offsets still to come has its runs already. If nothing is unfinished one may be admitted, or nothing would ever
        move.
        """
        span = max(self._next, self._loaded_end) - self._watermark
        most = (self._limit_bytes - HEAD_BYTES) // (2 + len(_base36(max(span, 1))))
        ahead = 0
        if self._next < self._loaded_end:
            ahead = len(self._ends) - bisect_right(self._ends, self._next)
            ahead += sum(offset >= self._next for offset in self._marks)
        return max(most - self._unfinished - ahead, 0 if self._unfinished else 1)

    def mark(self, offset: int) -> Mark | None:
        """What is known of its attempts; None for one that was never begun here or that is done."""
        return self._marks.get(offset)

    # ---------------------------------------------------------------------------------------------------------- moves

    def admit(self, offset: int) -> bool:
        """Whether it is to be handed out: False for what is done. What was left out since the last one does not exist
        (a transaction's marker, or it was deleted) and counts as done. Raises ValueError below `next_offset`."""
        if offset < self._next:
            raise ValueError(f"{offset} is below {self._next}, which is the next")
        if offset > self._next:
            self._add_done(self._next, offset)
        self._next = offset + 1
        if self._is_done(offset):
            return False
        self._unfinished += 1
        return True

    def begin(self, offset: int, known: Mark) -> None:
        """An attempt is about to run. `known` is what its record says of earlier ones, where nothing is kept here."""
        self._marks[offset] = self._marks.get(offset, known).begun()

    def end(self, offset: int) -> None:
        """The attempt is over and the message is not done."""
        mark = self._marks.get(offset)
        if mark is not None:
            self._marks[offset] = mark.ended()

    def retract(self, offset: int) -> None:
        """Take back the last `begin`: nothing has run."""
        mark = self._marks.get(offset)
        if mark is not None and mark.running:
            self._marks[offset] = mark.retracted()

    def restore(self, offset: int, mark: Mark | None) -> None:
        """Take back a `begin` that could not be committed. Does nothing if the message is done meanwhile."""
        if self._is_done(offset):
            return
        if mark is None:
            self._marks.pop(offset, None)
        else:
            self._marks[offset] = mark

    def done(self, offset: int) -> None:
        """It never comes again. Repeating it is harmless."""
        if not self._is_done(offset):
            self._unfinished -= offset < self._next
            self._add_done(offset, offset + 1)

    # ------------------------------------------------------------------------------------------------------- metadata

    def metadata(self) -> str | None:
        """What a new owner must know beyond the watermark; "" for nothing.

        Where that would be too long, what is done beyond the watermark is left out, so that some of it may come again.
        None if the marks alone are too long: then the last `begin` must be taken back.
        """
        text = self._encode(with_done=True)
        if len(text) > self._limit_bytes:
            text = self._encode(with_done=False)
        return text if len(text) <= self._limit_bytes else None

    def _encode(self, *, with_done: bool) -> str:
        states: dict[Mark, str] = {}
        parts = []
        for length, state in self._runs(with_done=with_done):
            symbol = state if isinstance(state, str) else states.get(state)
            if isinstance(state, Mark) and symbol is None:
                if len(states) < len(LETTERS):
                    symbol = states[state] = LETTERS[len(states)]
                else:
                    symbol = f"({state})"
            parts.append(f"{symbol}{'' if length == 1 else _base36(length)}")
        if not parts:
            return ""
        return f"{VERSION};b={self._watermark};s={','.join(map(str, states))};r={''.join(parts)}"

    def _runs(self, *, with_done: bool) -> list[tuple[int, Mark | str]]:
        """Length and state of each run from the watermark to the last offset of which anything is known."""
        pieces: list[tuple[int, int, Mark | str]] = [(one, one + 1, mark) for one, mark in self._marks.items()]
        if with_done:
            pieces += [(first, last, DONE) for first, last in zip(self._starts, self._ends, strict=True)]
        pieces.sort(key=itemgetter(0))
        runs: list[tuple[int, Mark | str]] = []
        at = self._watermark
        for first, last, piece in pieces:
            if first > at:
                runs.append((first - at, UNKNOWN))
            if runs and runs[-1][1] == piece:
                runs[-1] = (runs[-1][0] + last - first, piece)
            else:
                runs.append((last - first, piece))
            at = last
        return runs

    # --------------------------------------------------------------------------------------------------------- ranges

    def _is_done(self, offset: int) -> bool:
        at = bisect_right(self._starts, offset) - 1
        return offset < self._watermark or (at >= 0 and offset < self._ends[at])

    def _add_done(self, first: int, last: int) -> None:
        if last - first == 1:
            self._marks.pop(first, None)
        else:
            for offset in [one for one in self._marks if first <= one < last]:
                del self._marks[offset]
        # Those that touch the new range become part of it.
        low, high = bisect_left(self._ends, first), bisect_right(self._starts, last)
        if low < high:
            first, last = min(first, self._starts[low]), max(last, self._ends[high - 1])
        self._starts[low:high], self._ends[low:high] = [first], [last]
        if self._starts[0] <= self._watermark:
            self._watermark = max(self._watermark, self._ends[0])
            del self._starts[0], self._ends[0]


def decode(offset: int, metadata: str) -> list[tuple[int, int, Mark | None]]:
    """The runs of which something is known, each [first, last) and its mark, None for done; from `offset` on and in
    order. Raises ValueError for what `Tracker.metadata` did not write for this offset."""
    if not metadata:
        return []
    whole = WHOLE.fullmatch(metadata)
    if whole is None or int(whole["base"]) != offset:
        raise ValueError("not ours, or of another offset")
    names = whole["states"].split(",") if whole["states"] else []
    states = dict(zip(LETTERS, map(_mark, names), strict=False))
    runs: list[tuple[int, int, Mark | None]] = []
    at, marked = offset, 0
    for run in RUN.finditer(whole["runs"]):
        symbol, length = run["symbol"], int(run["length"] or "1", 36)
        if not 0 < length <= LONGEST_RUN:
            raise ValueError(f"a run of {length}")
        if symbol == DONE:
            runs.append((at, at + length, None))
        elif symbol != UNKNOWN:
            mark = _mark(symbol[1:-1]) if symbol[0] == "(" else states.get(symbol)
            marked += length
            if mark is None or marked > MOST_MARKED:
                raise ValueError(f"the run {run.group()!r}")
            runs.append((at, at + length, mark))
        at += length
    return runs


def _mark(text: str) -> Mark:
    attempt, _, interruptions = text.removesuffix("r").partition(".")
    return Mark(int(attempt), int(interruptions), text.endswith("r"))


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = DIGITS[digit] + digits
    return digits
