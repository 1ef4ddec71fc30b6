"""Requests that no honest client sends, as bytes for a socket; and what comes back. Seeded: the same number makes the
same requests in the same order."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from urllib.parse import urlsplit

from msgspec import Struct

ANSWER_WITHIN_S = 30.0
CLOSED = 0
"""Stands for the status of an answer that never came: the connection was closed."""


class Malformed(Struct, frozen=True, kw_only=True):
    """`pieces` are sent one after the other, each by itself; `ends`: then nothing more comes, and the server sees that.
    `expected` are the statuses that are right, CLOSED among them where the server may hang up."""

    kind: str
    pieces: Sequence[bytes]
    expected: frozenset[int]
    ends: bool = False


class Answered(Struct, frozen=True):
    status: int
    media_type: str


def head(
    *lines: bytes, method: bytes = b"POST", path: bytes = b"/v1/jobs", media_type: bytes = b"application/json"
) -> bytes:
    first = method + b" " + path + b" HTTP/1.1"
    return b"\r\n".join([first, b"host: forebay", b"content-type: " + media_type, *lines, b"", b""])


def sized(body: bytes, *lines: bytes, **changes: bytes) -> bytes:
    return head(b"content-length: %d" % len(body), *lines, **changes) + body


def chunked(*chunks: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head(b"transfer-encoding: chunked") + sent + last


Made = tuple[Sequence[bytes], set[int]]
Make = Callable[[random.Random], Made]


# -------------------------------------------------------------------------------------------------------------- chunks


def chunk_of_no_size(rng: random.Random) -> Made:
    size = rng.choice([b"zz", b"-5", b"", b"0x5", b"+1", b"5 5", b"f" * 17, b"1" * 5000, b"\x00", b"\xff"])
    return [head(b"transfer-encoding: chunked") + size + b"\r\nhello\r\n0\r\n\r\n"], {400}


def chunk_of_another_size(rng: random.Random) -> Made:
    size = rng.randrange(1, 20)
    return [head(b"transfer-encoding: chunked") + b"%x\r\n" % size + b"x" * (size + 3) + b"\r\n0\r\n\r\n"], {400}


def flood_of_chunk_extensions(rng: random.Random) -> Made:
    flood = b";" + b"a=b;" * rng.randrange(1000, 60_000) + b"c"
    return [head(b"transfer-encoding: chunked") + b"1" + flood + b"\r\n{\r\n0\r\n\r\n"], {400}


def flood_of_chunks(rng: random.Random) -> Made:
    return [chunked(*([b"["] * rng.randrange(1000, 20_000)))], {400}


def flood_of_trailers(rng: random.Random) -> Made:
    flood = b"x-trailer: %d\r\n" % rng.randrange(100) * rng.randrange(1000, 200_000)
    return [chunked(b"{", last=b"0\r\n" + flood + b"\r\n")], {400}


def chunks_without_an_end(rng: random.Random) -> Made:
    return [chunked(b"{", b" " * rng.randrange(1, 1000), last=b"")], {CLOSED}


# ------------------------------------------------------------------------------------------------------------- lengths


def length_that_is_none(rng: random.Random) -> Made:
    length = rng.choice([b"-1", b"+5", b"0x10", b"1e3", b"five", b"5, 6", b"5 5", b"1" * 30, b"\xb2", b""])
    return [head(b"content-length: " + length) + b"hello"], {400, CLOSED}


def lengths_that_differ(rng: random.Random) -> Made:
    one, other = rng.sample(range(1, 100), 2)
    return [head(b"content-length: %d" % one, b"content-length: %d" % other) + b"x" * 100], {400}


def length_and_chunks(rng: random.Random) -> Made:
    lines = [b"content-length: %d" % rng.randrange(100), b"transfer-encoding: chunked"]
    rng.shuffle(lines)
    return [head(*lines) + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"], {400}


def coding_in_transfer(rng: random.Random) -> Made:
    coding = rng.choice([b"gzip", b"chunked, gzip", b"gzip, chunked", b"identity", b"xchunked", b"chunked, chunked"])
    return [head(b"transfer-encoding: " + coding) + b"0\r\n\r\n"], {400, 415, CLOSED}


def length_beyond_all_bounds(rng: random.Random) -> Made:
    return [head(b"content-length: %d" % 10 ** rng.randrange(9, 18)) + b"{}"], {413}


def body_that_is_cut(rng: random.Random) -> Made:
    return [head(b"content-length: %d" % rng.randrange(10, 100_000)) + b'{"model"'], {CLOSED}


def body_that_is_longer(rng: random.Random) -> Made:
    return [head(b"content-length: 3") + b'{"model": "echo", "input": 1}' * rng.randrange(1, 50)], {400}


def slow_body(rng: random.Random) -> Made:
    body = b'{"model": "echo", "input": '
    return [head(b"content-length: %d" % len(body)), *(body[at : at + 3] for at in range(0, len(body), 3))], {400}


# ------------------------------------------------------------------------------------------------------------- headers


def flood_of_headers(rng: random.Random) -> Made:
    count = rng.randrange(300, 100_000)
    return [sized(b"{}", *(b"x-%d: %d" % (number, number) for number in range(count)))], {431, CLOSED}


def huge_header(rng: random.Random) -> Made:
    return [sized(b"{}", b"x-huge: " + b"h" * rng.randrange(70_000, 2_000_000))], {431, CLOSED}


def headers_without_an_end(rng: random.Random) -> Made:
    flood = b"x-flood: " + b"f" * 1000 + b"\r\n"
    return [head()[:-2], *([flood * 100] * rng.randrange(1, 100))], {431, CLOSED}


def header_that_is_none(rng: random.Random) -> Made:
    line = rng.choice(
        [b"no colon", b": no name", b"a b: c", b"x: \x00", b"x: a\rb", b"\xff: 1", b" folded: 1", b"x\t: 1"]
    )
    return [sized(b"{}", line)], {400}


def absurd_values(rng: random.Random) -> Made:
    name = rng.choice([b"prefer", b"idempotency-key", b"x-request-id", b"x-api-key", b"authorization", b"expect"])
    value = rng.choice(
        [b"wait=" + b"9" * 1000, b",;=" * 500, b"\xff\xfe", b"a" * 5000, b'"' * 99, b"Bearer", b"wait=-1"]
    )
    return [sized(b"{", name + b": " + value)], {400, 422}


# -------------------------------------------------------------------------------------------------- request lines, URLs


def no_http(rng: random.Random) -> Made:
    garbage = rng.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
            rng.randbytes(rng.randrange(8, 1000)),
            b"\r\n" * 10_000 + b"\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /livez HTTP/9.9\r\n\r\n",
            b"GET /livez HTTP/1.1 HTTP/1.1\r\n\r\n",
            b"GET  HTTP/1.1\r\n\r\n",
            b"GET \x00 HTTP/1.1\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
        ]
    )
    return [garbage], {400, CLOSED}


def wrong_method(rng: random.Random) -> Made:
    method = rng.choice(
        [b"BREW", b"get", b"TRACE", b"PATCH", b"PROPFIND", b"DELETE", b"G" * 10_000, b"OPTIONS", b"LINK"]
    )
    path = rng.choice([b"/v1/jobs", b"/inference", b"/livez", b"/v1/models"])
    return [sized(b"{}", method=method, path=path)], {400, 405, CLOSED}


def request_to_tunnel(rng: random.Random) -> Made:
    upgrade = rng.choice([b"websocket", b"h2c", b"TLS/1.3"])
    connect = b"CONNECT forebay:443 HTTP/1.1\r\nhost: forebay\r\n\r\n"
    asked = head(b"connection: upgrade", b"upgrade: " + upgrade, method=b"GET", path=b"/nothing")
    return [rng.choice([connect, asked])], {400, 404}


def absurd_path(rng: random.Random) -> Made:
    part = rng.choice(
        [
            b"../" * 50 + b"etc/passwd",
            b"%00",
            b"%ff%fe",
            b"%",
            b"%zz",
            b"//" * 200,
            b"\xc3\xa9",
            b"%F0%9F%98%80" * 100,
            b"a" * 4000,
            b"01a2244e-2917-7988-bb3f-e82c2c00985d-7a52cf3e19e436a0%0d%0ax:%20y",
        ]
    )
    path = rng.choice([b"/v1/jobs/", b"/v1/models/", b"/status/", b"/result/", b"/"]) + part
    return [head(method=b"GET", path=path)], {400, 404}


def endless_path(rng: random.Random) -> Made:
    # 400: more than 65,535 bytes are no URL for the parser.
    return [head(method=b"GET", path=b"/v1/jobs/" + b"a" * rng.randrange(20_000, 500_000))], {400, 414, 431, CLOSED}


def absurd_query(rng: random.Random) -> Made:
    query = rng.choice(
        [
            b"limit=-1",
            b"limit=" + b"9" * 5000,
            b"cursor=" + b"A" * 6000,
            b"created_after=0",
            b"status=%00",
            b"wait=60",
            b"&".join(b"x%d=1" % number for number in range(500)),
            b"metadata.=1",
            b"model=echo&mode=1",
        ]
    )
    return [head(method=b"GET", path=b"/v1/jobs?" + query)], {422}


def pipelined(rng: random.Random) -> Made:
    return [head(method=b"GET", path=b"/livez") * rng.randrange(2, 10_000)], {200}


# -------------------------------------------------------------------------------------------------------------- bodies


def deep_json(rng: random.Random) -> Made:
    depth = rng.randrange(200, 100_000)
    opened, closed = rng.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    whole = opened * depth + rng.choice([b"1" + closed * depth, b""])
    return [sized(rng.choice([whole, b'{"model": "echo", "input": ' + whole + b"}"]))], {400}


def number_that_is_none(rng: random.Random) -> Made:
    number = rng.choice(
        [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"+1", b".5", b"1.", b"0x1", b"-", b"9" * 9000]
    )
    return [sized(b'{"model": "echo", "input": ' + number + b"}")], {400}


def no_utf8(rng: random.Random) -> Made:
    text = rng.choice([b'"\xff"', b'"\xc0\x80"', b'"\\ud800"', b'"\x00"', b'"\xed\xa0\x80"', b'"\\u00"'])
    body = b'{"model": "echo", "input": ' + text + b"}"
    return [sized(rng.choice([body, b"\xef\xbb\xbf" + body, body.decode("latin-1").encode("utf-16")]))], {400}


@cache
def bomb() -> bytes:
    return gzip.compress(b'{"model": "echo", "input": "' + b"0" * 50_000_000 + b'"}', compresslevel=9)


def body_that_unpacks_itself(rng: random.Random) -> Made:
    coding = rng.choice([b"gzip", b"GZIP", b"x-gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"identity, gzip"])
    return [sized(bomb(), b"content-encoding: " + coding)], {415, CLOSED}


def wrong_media_type(rng: random.Random) -> Made:
    media_type = rng.choice(
        [b"text/plain", b"multipart/form-data; boundary=" + b"b" * 5000, b"image/png", b";;;", b"\xff/\xff"]
    )
    return [sized(b'{"model": "echo", "input": 1}', media_type=media_type)], {415}


def submission_that_is_none(rng: random.Random) -> Made:
    whole = {"model": "echo", "input": 1}
    body: object = rng.choice(
        [
            [],
            None,
            {},
            {**whole, "model": 5},
            {**whole, "lane": "x" * 10_000},
            {**whole, "run_timeout_s": -1},
            {**whole, "metadata": {"x": "y" * 20_000}},
            {**whole, **{f"field{number}": number for number in range(500)}},
            {**whole, "version": []},
        ]
    )
    return [sized(json.dumps(body).encode())], {422}


def _upload(rng: random.Random) -> bytes:
    line = rng.choice(
        [b"x", b"\xff", b"[" * 50_000, b'{"a":' * 50_000, b'{"input": NaN}', b"\x00" * 1000, b'"' * 300_000]
    )
    sent = b"\n".join([line] * rng.choice([1, 2, 3, 500 if len(line) < 2000 else 5]))
    start = head(b"transfer-encoding: chunked", path=b"/v1/batches", media_type=b"application/jsonl")
    return start + b"%x\r\n%s\r\n" % (len(sent), sent)


def lines_that_are_none(rng: random.Random) -> Made:
    return [_upload(rng) + b"0\r\n\r\n"], {202, 422}


def lines_that_are_cut(rng: random.Random) -> Made:
    return [_upload(rng)], {CLOSED}


KINDS: Sequence[Make] = (
    chunk_of_no_size,
    chunk_of_another_size,
    flood_of_chunk_extensions,
    flood_of_chunks,
    flood_of_trailers,
    chunks_without_an_end,
    length_that_is_none,
    lengths_that_differ,
    length_and_chunks,
    coding_in_transfer,
    length_beyond_all_bounds,
    body_that_is_cut,
    body_that_is_longer,
    slow_body,
    flood_of_headers,
    huge_header,
    headers_without_an_end,
    header_that_is_none,
    absurd_values,
    no_http,
    wrong_method,
    request_to_tunnel,
    absurd_path,
    endless_path,
    absurd_query,
    pipelined,
    deep_json,
    number_that_is_none,
    no_utf8,
    body_that_unpacks_itself,
    wrong_media_type,
    submission_that_is_none,
    lines_that_are_none,
    lines_that_are_cut,
)
_CUT = {
    "chunks_without_an_end",
    "lines_that_are_cut",
    "body_that_is_cut",
    "no_http",
    "headers_without_an_end",
    "coding_in_transfer",
    "length_that_is_none",
}


def malformed(count: int, seed: int) -> Iterator[Malformed]:
    """So many, each kind as often as every other."""
    rng = random.Random(seed)
    for number in range(count):
        make = KINDS[number % len(KINDS)]
        pieces, expected = make(rng)
        yield Malformed(kind=make.__name__, pieces=pieces, expected=frozenset(expected), ends=make.__name__ in _CUT)


async def send(url: str, request: Malformed) -> Answered:
    """The first answer. Raises TimeoutError when there is neither an answer nor an end."""
    parts = urlsplit(url)
    async with asyncio.timeout(ANSWER_WITHIN_S):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            for piece in request.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if request.ends:
                writer.write_eof()
        except OSError:
            pass  # it has heard enough
        try:
            answer = await reader.readuntil(b"\r\n\r\n")
            while answer.startswith(b"HTTP/1.1 100"):
                answer = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            return Answered(CLOSED, "")
        finally:
            writer.transport.abort()
    fields = dict(line.split(b": ", 1) for line in answer.lower().split(b"\r\n")[1:] if line)
    return Answered(int(answer[9:12]), fields.get(b"content-type", b"").decode())


async def send_all(url: str, requests: Iterable[Malformed], connections: int) -> list[tuple[Malformed, Answered]]:
    """All of them, so many at a time."""
    todo = iter(requests)
    done: list[tuple[Malformed, Answered]] = []

    async def work() -> None:
        for request in todo:
            done.append((request, await send(url, request)))

    await asyncio.gather(*(work() for _ in range(connections)))
    return done
