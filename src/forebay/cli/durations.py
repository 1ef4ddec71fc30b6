"""Spans of time as people write them."""

from __future__ import annotations

import re

from forebay.core.errors import InvalidRequest

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION = re.compile(r"(\d{1,6})([smhd])")


def seconds_of(text: str) -> float:
    """Raises InvalidRequest for what is no whole number with a unit."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"{text!r}: a whole number and a unit, such as 90d, 12h, 30m or 45s")
    return int(match[1]) * UNITS_S[match[2]]
