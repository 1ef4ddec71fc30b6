"""uvicorn with what it leaves to a proxy in front of it: bounds on the head of a request, on how long one may take to
arrive, on how many arrive at once and on how long one read may keep the loop; and with errors in the words of the API.

An API without a proxy is then no worse off for a caller who sends what nobody should (tests/fuzz/malformed.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import httptools
import uvicorn
from starlette.applications import Starlette
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from forebay.api.edge import HEAD_MAX_BYTES, HEADERS_MOST
from forebay.api.problems import BAD_REQUEST, HEAD_TOO_LARGE, problem

HEAD_WITHIN_S = 30.0
"""From the connection, or the first byte of a request, to the end of its headers; a body may take as long as it needs
while some of it comes each so many seconds. Twice what a slow phone network needs."""

PIPELINE_MOST = 64
"""Requests that wait for the answer to one before them on their connection; no client has so many. A read of 256 KiB
could bring 14,000."""

LINGER_S = 2.0
"""After a refusal what still comes is read and dropped for so long, since closing at once would take the answer from
the caller with it (RFC 9112 section 9.6)."""

LINGER_PAUSE_S = 0.02
"""After each read that is dropped: 256 KiB so often take 1% of a core, where one connection could take all of it; and
whoever sends 20 MB before they look at the answer still gets it within LINGER_S."""

AROUND_BODY_MOST_BYTES = 16 * 1024
"""What a chunked body may bring beside its data and PER_CHUNK_BYTES for each chunk, which leaves no room for extensions
that nobody reads; Go's server takes as many."""

PER_CHUNK_BYTES = 16

LAST_ANSWERS_S = 3
"""Requests under way when the API stops; those who wait for a job were answered within a second before."""

_SWEEP_TICKS = 10
"""uvicorn ticks ten times a second."""

_PIECE_BYTES = 16 * 1024
"""What is parsed before the bounds are looked at. A read can have 256 KiB: 50,000 headers, or 40,000 chunks."""

_PIECE_OF_DATA_BYTES = 64 * 1024
"""The same for what follows a piece that was data of a body throughout, which costs nothing."""

_TURN_CHUNKS = 1000
"""After so many of one read the others have their turn: 0.3 ms."""

CHUNKED_UPGRADE = "a body in chunks, with the header Upgrade: send its content-length, or speak nothing but HTTP/1.1"
"""Nobody would tell its chunks from what follows: the parser takes that for the other protocol."""


def http_server(app: Starlette) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            timeout_graceful_shutdown=LAST_ANSWERS_S,
        )
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the whole process stops in one order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.close_if_late()
        return await super().on_tick(counter)


class _Trailers(list[tuple[bytes, bytes]]):
    """Where trailers go. uvicorn would add them to the headers, which a proxy has judged and these it has not (RFC 9110
    section 6.5.1), and would keep any number of them."""

    def __init__(self) -> None:
        self._left = HEADERS_MOST

    def append(self, field: tuple[bytes, bytes]) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many trailers")  # the parser makes it a HttpParserError


class _InOne(asyncio.Transport):
    """The transport of one answer, whose head leaves with the first of its body where the body's length is known.

    uvicorn hands the two over one by one, and uvloop (0.23) writes each at once: two system calls for us, two packets
    for the client, and of a submission's cost a tenth."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        super().__init__()
        self._cycle = cycle
        self._transport = cycle.transport
        self._head = b""
        self._begun = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        cycle = self._cycle
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
            return
        if not self._begun and cycle.response_started:
            self._begun = True
            if cycle.expected_content_length and cycle.scope["method"] != "HEAD":
                self._head = bytes(data)
                return
        self._transport.write(data)

    def close(self) -> None:
        if self._head and not self._transport.is_closing():  # whoever made it could not make its body
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class _Flow(FlowControl):
    """Reads when the application wants to and what was read before is parsed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if not self._held:
                self._transport.resume_reading()

    def hold(self) -> None:
        self._held = True
        self._transport.pause_reading()

    def release(self) -> None:
        if self._held:
            self._held = False
            if not self.read_paused and not self._transport.is_closing():
                self._transport.resume_reading()


class Connection(HttpToolsProtocol):
    flow: _Flow

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._data: list[bytes] = []
        """Of the body, chunk by chunk, as parsed and not yet handed on."""
        # The parser, which is made next, calls it for each chunk: uvicorn's method would cost three times as much. mypy
        # minds that a method's parameter has a name.
        self.on_body = self._data.append  # type: ignore[assignment]
        super().__init__(*arguments, **named)
        self.headers = []
        self._heard_at = self.loop.time()
        self._head_since: float | None = self._heard_at
        """None while no head of a request is on its way."""
        self._head_bytes = 0
        self._running: RequestResponseCycle | None = None
        """The request that is being answered, or was last."""
        self._latest: RequestResponseCycle | None = None
        """The request that came last; it may wait for the answer to others."""
        self._refused = False
        self._unread = b""
        """Of the last read; nothing more is read meanwhile."""
        self._chunks = 0
        self._data_bytes = 0
        """Of the body, in the piece that is being parsed, with what its chunks may need."""
        self._around_bytes = 0
        self._refused_for = ""
        """Why this cannot be read, where that is not plain from the bytes."""
        self._past_parser = 0
        """Of the body, what is still to come and the parser is not to see: it takes all that follows a request with
        `Upgrade` for another protocol, and for us it is HTTP/1.1 all the same (RFC 9110 section 7.8)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = _Flow(transport)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self.flow.hold()
            self.loop.call_later(LINGER_PAUSE_S, self.flow.release)
            return
        self._heard_at = self.loop.time()
        self._unset_keepalive_if_required()
        if self._unread:  # its turn comes
            self._unread += data
        elif len(data) <= _PIECE_BYTES:
            self._parse(data)
        else:
            self._unread = data
            self._parse_on()

    def _parse_on(self) -> None:
        """What is unread, in turns with the other connections where it is tedious."""
        data, at, step = memoryview(self._unread), 0, _PIECE_BYTES
        self._chunks = 0
        while at < len(data) and self._chunks < _TURN_CHUNKS and not self._refused and not self.transport.is_closing():
            self._parse(data[at : at + step])
            at += step
            step = _PIECE_OF_DATA_BYTES if self._data_bytes == step + PER_CHUNK_BYTES else _PIECE_BYTES
        self._unread = b"" if self._refused or self.transport.is_closing() else self._unread[at:]
        if self._unread:
            self.flow.hold()
            self.loop.call_soon(self._parse_on)
        else:
            self.flow.release()

    def _parse(self, piece: bytes | memoryview) -> None:
        in_head, latest = self._head_since is not None, self._latest
        self._data_bytes = 0
        try:
            rest = piece
            while rest:
                rest = self._feed(rest)
            self._hand_on()
        except httptools.HttpParserError:
            self._end(400, BAD_REQUEST, self._refused_for or "this cannot be read as a request of HTTP/1.1")
            return
        if self._head_since is not None:
            self._head_bytes += len(piece) if in_head else 0
            if self._head_bytes > HEAD_MAX_BYTES or len(self.headers) > HEADERS_MOST:
                most = f"more than {HEAD_MAX_BYTES} bytes of headers, or than {HEADERS_MOST} of them"
                self._end(431, HEAD_TOO_LARGE, most)
        elif not in_head and latest is self._latest:
            self._around_bytes = max(0, self._around_bytes + len(piece) - self._data_bytes)
            if self._around_bytes > AROUND_BODY_MOST_BYTES:
                self._end(400, BAD_REQUEST, "too much around the chunks of the body")

    def _feed(self, piece: bytes | memoryview) -> bytes | memoryview:
        """What is left of it."""
        if self._past_parser:
            data, rest = piece[: self._past_parser], piece[self._past_parser :]
            self._past_parser -= len(data)
            self._data.append(bytes(data))
            if not self._past_parser:
                self.on_message_complete()
            return rest
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            return piece[upgrade.args[0] :]
        return b""

    def on_message_begin(self) -> None:
        self._head_since = self._heard_at
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_since = None
        if len(self.pipeline) >= PIPELINE_MOST:
            raise ValueError("too many requests wait for the answer to one before them")  # as for _Trailers
        if self.parser.should_upgrade():
            if any(name == b"transfer-encoding" for name, _ in self.headers):
                self._refused_for = CHUNKED_UPGRADE
                raise ValueError("a chunked body behind an upgrade")  # as for _Trailers
            self._past_parser = int(dict(self.headers).get(b"content-length", b"0"))
        super().on_headers_complete()
        self._latest = self.cycle
        self._around_bytes = 0
        self._latest.transport = _InOne(self._latest)  # its task has not begun yet
        self.headers = _Trailers()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        self._unset_keepalive_if_required()  # one before it may have been answered in an earlier turn of the same read
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._hand_on()
        if not self._past_parser:
            super().on_message_complete()

    def _hand_on(self) -> None:
        """To the request, the data that came for it."""
        chunks = len(self._data)
        if not chunks:
            return
        data = b"".join(self._data)
        self._data.clear()
        self._chunks += chunks
        self._data_bytes += len(data) + PER_CHUNK_BYTES * chunks
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += data
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def _end(self, status: int, code: str, detail: str) -> None:
        """What could not be read ends the connection. It is answered only where nobody could take that for the answer
        to another request; one that runs is answered first, what waits behind it is not."""
        running, latest = self._running, self._latest
        self._refused = True
        if running is not None and not running.response_complete and not (running is latest and running.more_body):
            self.pipeline.clear()
            running.keep_alive = False
        elif latest is not None and latest.more_body and latest.response_started:
            latest.disconnected = True
            self.transport.close()
        else:
            self._refuse(status, code, detail)

    def close_if_late(self) -> None:
        now = self.loop.time()
        if self._running is None or self._running.response_complete:
            late = self._head_since is not None and now - self._head_since > HEAD_WITHIN_S
        else:
            waiting = self._running.more_body and not self.flow.read_paused
            late = waiting and now - self._heard_at > HEAD_WITHIN_S
        if late and not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        answer = problem({}, status, code, detail)
        fields = [*answer.headers, (b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]
        lines = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + answer.body)
        self.transport.write_eof()
        if self._running is not None and not self._running.response_complete:  # it waits for the rest of its body
            self._running.disconnected = True
            self._running.message_event.set()
        self.loop.call_later(LINGER_S, self.transport.close)
