"""What a route gives back: a status, headers and bytes that are already made."""

from __future__ import annotations

from collections.abc import Sequence

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


def header(name: str, value: str) -> Header:
    """A header whose value came from us or was checked; anything outside Latin-1 becomes `?`, never an error."""
    return name.encode(), value.encode("latin-1", "replace")
