"""Whatever a name holds, PostgreSQL takes it, and gives back the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay.adapters.postgres.texts import from_text, to_text

NAMES = st.text(st.one_of(st.characters(codec=None), st.sampled_from("\\\0\ud800\udfff0005cd8\n ")))


@given(NAMES)
def test_it_comes_back_as_it_was(name: str) -> None:
    assert from_text(to_text(name)) == name


@given(NAMES)
def test_postgresql_takes_it(name: str) -> None:
    text = to_text(name)
    assert "\0" not in text
    text.encode()  # UTF-8 without lone surrogates


@given(NAMES, NAMES)
def test_two_names_stay_two(one: str, two: str) -> None:
    assert (to_text(one) == to_text(two)) == (one == two)


@given(st.text(st.characters(blacklist_characters="\\\0", blacklist_categories=["Cs"])))
def test_what_can_be_kept_as_it_is_is_kept(name: str) -> None:
    assert to_text(name) == name
