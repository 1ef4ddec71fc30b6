"""What our server does beyond uvicorn's: bounds on what has no bound there, and no answer that could be taken for
another's. Spoken to in bytes, as by a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from forebay.api.edge import HEAD_MAX_BYTES, HEADERS_MOST
from forebay.assembly.http import HEAD_WITHIN_S, PIPELINE_MOST, Connection, http_server


class Wire(asyncio.Transport):
    """Holds what was written; `closed` as soon as nothing more can be, `reading` while more may come."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.begun = asyncio.Event()
        self.closed = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self._closing = False

    def write(self, data: Any) -> None:
        assert not self.closed.is_set()
        self.written += data
        self.writes += 1
        self.begun.set()

    def write_eof(self) -> None:
        self.closed.set()

    def close(self) -> None:
        self._closing = True
        self.closed.set()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reading.clear()

    def resume_reading(self) -> None:
        self.reading.set()

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.written.split(b"HTTP/1.1 ")[1:]]

    @property
    def problem(self) -> tuple[int, str]:
        told = json.loads(self.written[self.written.index(b"\r\n\r\n") :])
        return told["status"], told["code"]


class Loop:
    """The loop that runs, with a clock of ours."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)


class Server:
    """An application that answers with what it read, once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.seen: list[Any] = []
        self.loop = Loop()
        routes = [
            Route("/", self._answer, methods=["GET", "POST"]),
            Route("/begun", self._begun),
            Route("/early", self._early, methods=["POST"]),
            Route("/broken", self._broken),
        ]
        self.config = http_server(Starlette(routes=routes)).config
        self._state = http_server(Starlette()).server_state

    async def _answer(self, request: Request) -> Response:
        self.seen.append(request)
        await self.may.wait()
        return PlainTextResponse(await request.body())

    async def _early(self, request: Request) -> Response:
        return PlainTextResponse("whatever the body is", 401)

    async def _begun(self, request: Request) -> Response:
        if request.method == "HEAD":
            return PlainTextResponse("never sent")

        async def pieces() -> AsyncIterator[str]:
            await self.may.wait()
            yield "late"

        return StreamingResponse(pieces())

    async def _broken(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            if self.may.is_set():
                raise ValueError("no body after all")
            yield ""

        return StreamingResponse(pieces(), headers={"content-length": "9"})

    def connect(self) -> tuple[Connection, Wire]:
        wire = Wire()
        connection = Connection(self.config, self._state, {}, cast(asyncio.AbstractEventLoop, self.loop))
        connection.connection_made(wire)
        return connection, wire

    async def idle(self) -> None:
        """Until every request that runs has been answered."""
        await asyncio.gather(*self._state.tasks)


@pytest.fixture
async def server() -> Server:
    return Server()


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_headers_without_an_end_are_cut_off(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(b"GET / HTTP/1.1\r\nx: ")
    while not wire.closed.is_set():
        connection.data_received(b"y" * 10_000)
    assert wire.problem == (431, "headers_too_large")
    assert len(connection.headers) == 0


async def test_a_body_is_no_head_however_long(server: Server) -> None:
    connection, wire = server.connect()
    length = 4 * HEAD_MAX_BYTES
    connection.data_received(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % length)
    for _ in range(4):
        connection.data_received(b"y" * HEAD_MAX_BYTES)
    connection.data_received(GET[:-10])
    await server.idle()
    assert wire.statuses == [200]
    connection.data_received(GET[-10:])
    await server.idle()
    assert wire.statuses == [200, 200]


@pytest.mark.parametrize("end", [b"", b"\r\n"], ids=["that go on", "that end"])
async def test_of_a_flood_of_headers_the_beginning_is_parsed(server: Server, end: bytes) -> None:
    connection, wire = server.connect()
    connection.data_received(b"GET / HTTP/1.1\r\n" + b"x:y\r\n" * 40_000 + end)
    assert wire.problem == (431, "headers_too_large")
    assert len(connection.headers) < 4000
    assert not server.seen


async def test_headers_that_are_too_many_are_refused_before_they_end(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(b"GET / HTTP/1.1\r\n" + b"x:y\r\n" * HEADERS_MOST)
    assert not wire.closed.is_set()
    connection.data_received(b"x:y\r\nx:y\r\n")  # the parser tells of one when the next begins
    assert wire.problem == (431, "headers_too_large")


async def test_headers_without_an_end_are_not_refused_in_place_of_an_answer(server: Server) -> None:
    server.may.clear()
    connection, wire = server.connect()
    connection.data_received(GET + b"GET / HTTP/1.1\r\n" + b"x:y\r\n" * 40_000)
    server.may.set()
    await server.idle()
    assert wire.statuses == [200]
    assert wire.closed.is_set()


async def test_tiny_chunks_are_parsed_in_turns_with_other_connections(server: Server) -> None:
    connection, wire = server.connect()
    count = 40_000
    connection.data_received(POST + b"1\r\nx\r\n" * count + b"0\r\n\r\n" + GET)
    assert not wire.reading.is_set()
    assert len(connection.cycle.body) < count / 10
    await wire.reading.wait()
    await server.idle()
    await server.idle()
    assert wire.statuses == [200, 200]
    assert wire.written.count(b"x" * count) == 1


async def test_what_comes_while_chunks_are_parsed_is_not_read_before_them(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(POST + b"1\r\nx\r\n" * 10_000)
    connection.data_received(b"1\r\ny\r\n0\r\n\r\n")
    await wire.reading.wait()
    await server.idle()
    assert wire.written.endswith(b"x" * 10_000 + b"y")


async def test_a_caller_who_leaves_amid_tiny_chunks_leaves_nothing_to_do(server: Server) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    connection, wire = server.connect()
    connection.data_received(POST + b"1\r\nx\r\n" * 40_000)
    wire.close()
    connection.connection_lost(None)
    await server.idle()
    await asyncio.sleep(0)
    assert not faults


async def test_a_flood_of_chunk_extensions_is_no_body(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(POST)
    for _ in range(5):
        connection.data_received(b"1;" + b"a=b;" * 1000 + b"c\r\n{\r\n")
    assert wire.problem == (400, "bad_request")
    await server.idle()


async def test_after_a_refusal_little_is_read(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(b"no request at all\r\n")
    assert wire.statuses == [400]
    connection.data_received(b"and more of it\r\n")
    assert not wire.reading.is_set()
    await wire.reading.wait()
    assert wire.statuses == [400]


async def test_what_cannot_be_read_is_no_news_for_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    connection, wire = server.connect()
    connection.data_received(b"no request at all\r\n")
    assert wire.problem == (400, "bad_request")
    assert not caplog.records


async def test_trailers_are_no_headers(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(POST + b"2\r\nhi\r\n0\r\nx-api-key: stolen\r\n\r\n")
    await server.idle()
    assert wire.written.endswith(b"hi")
    (request,) = server.seen
    assert "x-api-key" not in request.headers


async def test_a_flood_of_trailers_is_no_request(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(POST + b"2\r\nhi\r\n0\r\n" + b"x: y\r\n" * 2 * HEADERS_MOST)
    assert wire.problem == (400, "bad_request")
    await server.idle()
    assert wire.statuses == [400]


async def test_requests_on_the_heels_of_each_other_are_answered_in_order(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(GET * PIPELINE_MOST)
    for _ in range(PIPELINE_MOST):
        await server.idle()
    assert wire.statuses == [200] * PIPELINE_MOST
    assert not wire.closed.is_set()


@pytest.mark.parametrize("more", [GET * 1000, b"no request at all\r\n"], ids=["a flood", "no HTTP"])
async def test_what_cannot_be_taken_ends_the_connection_after_the_answer_to_what_runs(
    server: Server, more: bytes
) -> None:
    server.may.clear()
    connection, wire = server.connect()
    connection.data_received(GET + more)
    connection.data_received(GET)
    assert not connection.pipeline
    server.may.set()
    await server.idle()
    assert wire.statuses == [200]
    assert wire.closed.is_set()


UPGRADE = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n"


@pytest.mark.parametrize("size", [0, 5, 40_000])
async def test_who_would_rather_speak_another_protocol_is_answered_as_any_other(server: Server, size: int) -> None:
    """Java's client asks for h2c with its first request, whatever its method."""
    connection, wire = server.connect()
    body = (GET * (size // len(GET) + 1))[:size]
    sent = UPGRADE + b"content-length: %d\r\n\r\n" % size + body + GET
    for at in range(0, len(sent), 30_000):
        connection.data_received(sent[at : at + 30_000])
    for _ in range(2):
        await server.idle()
    assert wire.statuses == [200, 200]
    assert wire.written.count(b"\r\n\r\n" + body) == 1 + (size == 0)
    assert [request.method for request in server.seen] == ["POST", "GET"]


async def test_chunks_behind_an_upgrade_are_no_request(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(UPGRADE + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" + GET)
    assert wire.problem == (400, "bad_request")
    assert b"send its content-length" in wire.written
    assert not server.seen


async def test_a_request_that_is_parsed_after_the_answer_to_one_before_it_is_not_cut_off(server: Server) -> None:
    connection, wire = server.connect()
    early = b"POST /early HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.data_received(early + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n" + GET)
    server.may.clear()
    while not server.seen:
        await wire.reading.wait()
        await asyncio.sleep(0)
    assert connection.timeout_keep_alive_task is None
    server.may.set()
    await server.idle()
    assert wire.statuses == [401, 200]


async def test_an_answer_leaves_in_one_write(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(POST + b"2\r\nhi\r\n0\r\n\r\n")
    await server.idle()
    assert wire.written.endswith(b"\r\n\r\nhi")
    assert wire.writes == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_head_that_no_body_follows_leaves_at_once(server: Server, method: str) -> None:
    server.may.clear()
    connection, wire = server.connect()
    connection.data_received(b"%s /begun HTTP/1.1\r\n\r\n" % method.encode())
    await wire.begun.wait()
    assert wire.statuses == [200]
    server.may.set()
    await server.idle()


async def test_of_an_answer_without_its_body_the_head_leaves_before_the_end(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(b"GET /broken HTTP/1.1\r\n\r\n")
    await server.idle()
    assert wire.statuses == [200]
    assert wire.closed.is_set()


async def test_a_body_that_cannot_be_read_is_answered_in_the_words_of_the_api(server: Server) -> None:
    connection, wire = server.connect()
    connection.data_received(POST + b"2\r\nhi")
    await asyncio.sleep(0)
    connection.data_received(b" and no end\r\n")
    assert wire.problem == (400, "bad_request")
    assert wire.closed.is_set()
    await server.idle()


Begin = Callable[[Connection], None]


@pytest.mark.parametrize(
    "begin",
    [
        lambda connection: None,
        lambda connection: connection.data_received(b"GET / HT"),
        lambda connection: connection.data_received(POST + b"2\r\nh"),
    ],
    ids=["nothing", "half a head", "half a body"],
)
async def test_who_does_not_go_on_is_cut_off(server: Server, begin: Begin) -> None:
    connection, wire = server.connect()
    begin(connection)
    server.loop.now = HEAD_WITHIN_S
    connection.close_if_late()
    assert not wire.closed.is_set()
    server.loop.now += 1
    connection.close_if_late()
    assert wire.closed.is_set()
    connection.connection_lost(None)
    await server.idle()


async def test_who_waits_for_an_answer_is_not(server: Server) -> None:
    server.may.clear()
    connection, wire = server.connect()
    connection.data_received(GET)
    server.loop.now = 10 * HEAD_WITHIN_S
    connection.close_if_late()
    server.may.set()
    await server.idle()
    connection.close_if_late()  # it may ask again, for as long as uvicorn keeps a connection
    assert wire.statuses == [200]
    assert not wire.closed.is_set()
