"""Times as text."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.times import from_rfc3339, to_rfc3339

microseconds = st.integers(0, 4_102_444_800 * 10**6)  # 1970 to 2100


def test_the_format_is_fixed() -> None:
    assert to_rfc3339(1_764_000_000.25) == "2025-11-24T16:00:00.250000Z"
    assert to_rfc3339(0.0) == "1970-01-01T00:00:00.000000Z"


@given(microseconds)
def test_microseconds_survive(us: int) -> None:
    at = us / 1e6
    assert from_rfc3339(to_rfc3339(at)) == at
    assert to_rfc3339(from_rfc3339(to_rfc3339(at))) == to_rfc3339(at)


@given(st.floats(-62_135_596_800.0, 253_402_300_799.0))
def test_a_time_is_written_as_the_standard_library_writes_it(at: float) -> None:
    expected = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
    assert to_rfc3339(at) == expected.replace("+00:00", "Z")


@given(microseconds, microseconds)
def test_text_sorts_as_time_does(one: int, two: int) -> None:
    assert (to_rfc3339(one / 1e6) < to_rfc3339(two / 1e6)) == (one < two)


@pytest.mark.parametrize(
    "text", ["2025-11-24T16:00:00Z", "2025-11-24T17:00:00+01:00", "2025-11-24T10:30:00.000-05:30", "20251124T160000Z"]
)
def test_other_ways_to_write_a_time_are_read(text: str) -> None:
    assert from_rfc3339(text) == 1_764_000_000.0


@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999Z"]
)
def test_a_time_that_could_not_be_written_again_is_refused(text: str) -> None:
    """The last is the last microsecond of all, which a float cannot tell from the year 10000."""
    with pytest.raises(ValueError, match="years 1 to 9999"):
        from_rfc3339(text)


@given(st.datetimes(timezones=st.timezones()))
def test_whatever_is_read_can_be_written_again(at: datetime) -> None:
    with contextlib.suppress(ValueError):  # what cannot be read need not be written
        seconds = from_rfc3339(at.isoformat())
        assert from_rfc3339(to_rfc3339(seconds)) == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize("text", ["", "now", "2025-11-24T16:00:00", "2025-11-24", "2025-13-24T16:00:00Z", "1764000000"])
def test_what_is_no_time_or_names_no_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"offset|isoformat|month must be"):
        from_rfc3339(text)
