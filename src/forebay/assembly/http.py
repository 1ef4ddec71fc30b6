"""uvicorn with what it leaves to a proxy in front of it: bounds on the head of a request, on how long one may take to
arrive and on how many arrive at once; and with errors in the words of the API.

An API without a proxy is then no worse off for a caller who sends what nobody should (tests/fuzz/malformed.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn._types import ASGI3Application
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

LAST_ANSWERS_S = 3
"""Requests under way when the API stops; those who wait for a job were answered within a second before."""

_SWEEP_TICKS = 10
"""uvicorn ticks ten times a second."""


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
            raise ValueError("too many trailers")  # see Connection.send_400_response


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
            data, self._head = self._head + data, b""
        elif not self._begun and cycle.response_started:
            self._begun = True
            if cycle.expected_content_length and cycle.scope["method"] != "HEAD":
                self._head = bytes(data)
                return
        self._transport.write(data)

    def close(self) -> None:
        if self._head:  # whoever made it could not make its body
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class Connection(HttpToolsProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._heard_at = self.loop.time()
        self._head_since: float | None = self._heard_at
        """None while no head of a request is on its way."""
        self._head_bytes = 0
        self._running: RequestResponseCycle | None = None
        """The request that is being answered, or was last."""
        self._latest: RequestResponseCycle | None = None
        """The request that came last; it may wait for the answer to others."""
        self._refused = False

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._heard_at = self.loop.time()
        in_head = self._head_since is not None
        super().data_received(data)
        if in_head and self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX_BYTES:
                self._refuse(431, HEAD_TOO_LARGE, f"more than {HEAD_MAX_BYTES} bytes of headers")

    def on_message_begin(self) -> None:
        self._head_since = self._heard_at
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_since = None
        if len(self.pipeline) >= PIPELINE_MOST:
            raise ValueError("too many requests wait for the answer to one before them")  # see send_400_response
        super().on_headers_complete()
        self._latest = self.cycle
        self._latest.transport = _InOne(self._latest)  # its task has not begun yet
        self.headers = _Trailers()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """What could not be read ends the connection. It is answered only where nobody could take that for the answer
        to another request; one that runs is answered first, what waits behind it is not."""
        running, latest = self._running, self._latest
        if running is not None and not running.response_complete and not (running is latest and running.more_body):
            self._refused = True
            self.pipeline.clear()
            running.keep_alive = False
        elif latest is not None and latest.more_body and latest.response_started:
            latest.disconnected = True
            self.transport.close()
        else:
            self._refuse(400, BAD_REQUEST, "this cannot be read as a request of HTTP/1.1")

    def _unsupported_upgrade_warning(self) -> None:
        """A caller who would rather speak WebSocket is answered as any other; nobody here has to hear of it."""

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
        self._refused = True
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + answer.body)
        self.transport.write_eof()
        if self._running is not None and not self._running.response_complete:  # it waits for the rest of its body
            self._running.disconnected = True
            self._running.message_event.set()
        self.loop.call_later(LINGER_S, self.transport.close)
