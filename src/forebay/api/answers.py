"""What a route gives back: a status, headers and bytes that are already made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

Header = tuple[bytes, bytes]

JSON_TYPE: Header = (b"content-type", b"application/json")
PROBLEM_TYPE: Header = (b"content-type", b"application/problem+json")
NO_STORE: Header = (b"cache-control", b"no-store")
VARY_PREFER: Header = (b"vary", b"Prefer")
RETRY_SOON: Header = (b"retry-after", b"1")
REPLAYED: Header = (b"idempotency-replayed", b"true")


IS_HEAD = "forebay.is_head"
"""Key in an ASGI scope of a request of which nobody wants the body; `edge.py` sets it."""


class Answer:
    """A response, as an ASGI application.

    Starlette's Response does the same and more (cookies, background tasks, header lookup), at several times the cost;
    on the submit route that cost is visible.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Sequence[Header] = (JSON_TYPE,)) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = list(self.headers)
        if self.status not in (204, 304):  # which have no body (RFC 9110 section 8.6)
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Stream:
    """An answer in pieces, for as long as its caller is there. The first is made before the status is sent, so that
    what fails at once is told as such; what goes wrong later cuts the connection."""

    def __init__(self, status: int, first: bytes, others: AsyncIterator[bytes], headers: Sequence[Header]) -> None:
        self._status = status
        self._first = first
        self._others = others
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": list(self._headers)})
        request = Request(scope, receive)
        if not scope.get(IS_HEAD):
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._others:
                if await request.is_disconnected():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def header(name: str, value: str) -> Header:
    """A header whose value came from us or was checked; anything outside Latin-1 becomes `?`, never an error."""
    return name.encode(), value.encode("latin-1", "replace")
