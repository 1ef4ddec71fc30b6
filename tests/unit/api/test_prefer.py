"""RFC 7240 as people really send it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.prefer import Preferences, parse_prefer


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], Preferences()),
        (["wait=10"], Preferences(10)),
        (["WAIT=10"], Preferences(10)),
        (["wait = 10"], Preferences(10)),
        (['wait="10"'], Preferences(10)),
        (["wait=10; foo=bar"], Preferences(10)),
        (["respond-async,wait=10"], Preferences(10, True)),
        (["respond-async , , wait=10 "], Preferences(10, True)),
        (["Respond-Async", "wait=1"], Preferences(1, True)),
        (["wait=1, wait=2"], Preferences(1)),
        (["wait=bad, wait=2"], Preferences()),
        (["wait=100"], Preferences(60)),
        (["wait=0"], Preferences(0)),
        (["wait"], Preferences()),
        (["wait="], Preferences()),
        (["wait=-5"], Preferences()),
        (["wait=5.5"], Preferences()),
        (["wait=" + "9" * 10_000], Preferences()),
        (["wait=²"], Preferences()),
        (['return=minimal; foo="a, wait=3", wait=4'], Preferences(4)),
        (['foo="bar, wait=3", respond-async'], Preferences(None, True)),
        (["=3, wait=4"], Preferences(4)),
        ([":, wait=4"], Preferences(4)),
        (["handling=strict"], Preferences()),
        (["waiting=5, xwait=5"], Preferences()),
    ],
)
def test_reads(headers: list[str], expected: Preferences) -> None:
    assert parse_prefer(headers) == expected


@given(st.lists(st.text(), max_size=4))
def test_nothing_makes_it_raise(headers: list[str]) -> None:
    found = parse_prefer(headers)
    assert found.wait_s is None or 0 <= found.wait_s <= 60


@given(st.text(alphabet='wait=0123, ;"\\', max_size=200))
def test_nothing_near_the_grammar_makes_it_raise(header: str) -> None:
    parse_prefer([header])


def test_it_takes_time_in_proportion_to_the_header() -> None:
    """64 KiB are more than any server lets in; a pattern that backtracks would need hours for some of these."""
    for piece in ("a", ";", '"', "\\", "=", " ", ",", "a=", ";a=", '="'):
        parse_prefer([piece * (65536 // len(piece))])
