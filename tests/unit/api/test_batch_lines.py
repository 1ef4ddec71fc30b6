"""Lines come out as they went in, wherever the pieces of the body begin and end; and parts depend on the file alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.api.batch_lines import BOM, PART_LINES, Line, LineReader, Part, Parts

MOST = 20


def read(*pieces: bytes) -> list[Line]:
    reader = LineReader(MOST)
    return [line for piece in pieces for line in reader.feed(piece)] + list(reader.end())


def cut(body: bytes, places: set[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if place < len(body)), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


texts = st.lists(st.binary(max_size=MOST).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), max_size=8)


@given(
    texts,
    st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=8, max_size=8),
    st.booleans(),
    st.sets(st.integers(0, 200)),
)
def test_lines_are_the_same_wherever_the_body_is_cut(
    lines: list[bytes], ends: list[bytes], last_ends: bool, places: set[int]
) -> None:
    body = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    if lines and not last_ends:
        body = body.removesuffix(b"\n").removesuffix(b"\r")
        lines = lines if lines[-1] else lines[:-1]
    expected = [line.removeprefix(BOM) if number == 0 else line for number, line in enumerate(lines)]
    assert read(*cut(body, places)) == list(enumerate(expected, start=1))


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\r\nb", [b"a", b"b"]),
        (b"\n\na", [b"", b"", b"a"]),
        (b"\n", [b""]),
        (BOM + b"a\n" + BOM, [b"a", BOM]),
        (b"a\rb\n", [b"a\rb"]),
    ],
)
def test_what_a_line_is(body: bytes, lines: list[bytes]) -> None:
    assert [line for _, line in read(body)] == lines


@given(st.sets(st.integers(0, 300)))
def test_of_a_line_that_is_too_long_nothing_is_kept_and_the_next_is_read(places: set[int]) -> None:
    body = b"x" * MOST + b"\r\n" + b"y" * 200 + b"\n" + b"z" * (MOST + 1)
    reader = LineReader(MOST)
    found: list[Line] = []
    for piece in cut(body, places):
        found += reader.feed(piece)
        assert reader.held_bytes <= MOST + 1
    assert [*found, *reader.end()] == [(1, b"x" * MOST), (2, None), (3, None)]


def parts_of(lines: list[bytes]) -> list[Part]:
    parts = Parts()
    found = [part for number, line in enumerate(lines, start=1) if (part := parts.add((number, line)))]
    return [*found, *(one for one in [parts.end()] if one)]


def test_a_part_ends_after_so_many_lines_or_bytes() -> None:
    parts = parts_of([b"x"] * (2 * PART_LINES + 1))
    assert [(part.first, part.last) for part in parts] == [(1, 400), (401, 800), (801, 801)]
    large = parts_of([b"x" * 600_000] * 5)
    assert [(part.first, part.last) for part in large] == [(1, 2), (3, 4), (5, 5)]


def test_a_digest_tells_lines_apart() -> None:
    different = [[b"a", b"b"], [b"ab"], [b"a", b"", b"b"], [b"a\nb"], [b""], [b"too long"]]
    digests = {Part([(number, line) for number, line in enumerate(lines, 1)]).digest() for lines in different}
    assert len({*digests, Part([(1, None)]).digest()}) == len(different) + 1
