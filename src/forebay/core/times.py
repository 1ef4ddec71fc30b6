"""Times as text. Inside, a time is a float of seconds since the Unix epoch, kept to the microsecond."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache

_FIRST = datetime.min.replace(tzinfo=UTC).timestamp()
_END = datetime.max.replace(tzinfo=UTC).timestamp()  # rounded up to the year 10000, since a float is not so fine


def to_rfc3339(at: float) -> str:
    """`1764000000.25` -> `2025-11-24T16:00:00.250000Z`. Always six decimals, so that text sorts as time does."""
    fraction, second = math.modf(at)
    microsecond = round(fraction * 1e6)  # half to even, as `datetime` rounds
    if microsecond < 0:
        second, microsecond = second - 1, microsecond + 1_000_000
    elif microsecond == 1_000_000:
        second, microsecond = second + 1, 0
    return f"{_to_the_second(second)}.{microsecond:06d}Z"


@lru_cache(maxsize=256)  # what is under way is of few seconds, and a date costs as much as all the rest
def _to_the_second(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


def from_rfc3339(text: str) -> float:
    """The inverse, for any RFC 3339 offset. Raises ValueError when the text is no time or names no offset, or when the
    offset carries it to where `to_rfc3339` could not write it."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} names no offset; write it like 2026-11-23T18:00:00Z")
    seconds = at.timestamp()
    if not _FIRST <= seconds < _END:
        raise ValueError(f"{text!r} is outside of the years 1 to 9999 in UTC")
    return seconds
