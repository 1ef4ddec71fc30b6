"""The outermost layer: request ids, the body limit, metrics, and the last word on errors that nobody foresaw."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.api.answers import IS_HEAD
from forebay.api.body_budget import BodyBudget
from forebay.api.problems import (
    BAD_REQUEST,
    HEAD_TOO_LARGE,
    REQUEST_ID,
    URI_TOO_LONG,
    UnsupportedCoding,
    internal,
    problem_of,
)
from forebay.core.errors import InvalidRequest, PayloadTooLarge
from forebay.telemetry.metrics import Metrics

log = structlog.get_logger()

HEAD_MAX_BYTES = 64 * 1024
HEADERS_MOST = 200
"""Apache takes 100, with 8 KiB each; nginx 32 KiB in all."""

URI_MAX_BYTES = 16 * 1024
"""A cursor has some 100, a filter by metadata as many as its value."""

_GOOD_ID = re.compile(rb"[A-Za-z0-9._~:+/=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
CLIENT_LEFT = 499
"""Status in the metrics for a caller who hung up before the answer; the word is nginx's, nothing is sent."""


class Edge:
    """Pure ASGI, one per app. A caller's `X-Request-ID` is kept when it is 1 to 128 harmless characters.

    At paths that begin with `streamed` bodies have no limit: what is there bounds what it holds of them.
    HEAD is answered as GET without the body (RFC 9110 section 9.3.2).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body_bytes: int,
        streamed: str = "",
        budget: BodyBudget,
        random_bytes: Callable[[int], bytes],
        monotonic: Callable[[], float],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._streamed = streamed
        self._budget = budget
        self._random_bytes = random_bytes
        self._monotonic = monotonic
        self._meters: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = self._monotonic()
        method = scope["method"]
        length = encoding = transfer = request_id = b""
        head_bytes = 0
        for name, value in scope["headers"][: HEADERS_MOST + 1]:
            head_bytes += len(name) + len(value)
            if name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                transfer = value.strip().lower()
            elif name == b"content-encoding":
                encoding = value.strip().lower()
            elif name == b"x-request-id" and _GOOD_ID.fullmatch(value):
                request_id = value
        request_id = request_id or self._random_bytes(16).hex().encode()
        # A copy for HEAD only: the server's own scope must go on saying HEAD, so that it leaves out the body.
        scope = {**scope, "method": "GET", IS_HEAD: True} if method == "HEAD" else scope
        scope[REQUEST_ID] = request_id.decode()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            refusal = _refusal(scope, head_bytes)
            if refusal is None:
                await self._app(scope, self._guarded(scope, receive, length, encoding, transfer), send_with_id)
            else:
                await problem_of(scope, refusal)(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:
            log.exception("request.crashed", request_id=scope[REQUEST_ID], method=method, path=scope["path"])
            if status:  # too late for another answer: the server must cut the connection
                raise
            await internal(scope)(scope, receive, send_with_id)
        finally:
            self._budget.release(scope)
            self._meter(method, scope, status, self._monotonic() - began)

    def _guarded(self, scope: Scope, receive: Receive, length: bytes, encoding: bytes, transfer: bytes) -> Receive:
        """`receive` for a body that may be read. It raises, before anything is read, for a body whose headers alone say
        that it cannot be, or for which there is no room now; and it cuts one off at the limit, whatever its headers
        said of its length."""
        taken = 0
        limited = not (self._streamed and scope["path"].startswith(self._streamed))

        async def guarded() -> Message:
            nonlocal taken
            if not taken:
                self._check(length if limited else b"", encoding, transfer)
                self._budget.claim(scope, int(length or 0) if limited else 0)
            message = await receive()
            if not limited:
                taken = 1
                return message
            size = len(message.get("body", b""))
            taken += size
            if taken > self._max_body_bytes:
                raise self._too_large()
            if size:
                self._budget.claim(scope, taken)  # more than its length said, or it said none
            return message

        return guarded

    def _check(self, length: bytes, encoding: bytes, transfer: bytes) -> None:
        if transfer not in (b"", b"chunked"):
            raise InvalidRequest("of transfer-encodings chunked is taken, alone", code=BAD_REQUEST)
        if length and not length.isdigit():
            raise InvalidRequest("content-length is not a number", code=BAD_REQUEST)
        if len(length) > 18 or (length and int(length) > self._max_body_bytes):  # int() refuses thousands of digits
            raise self._too_large()
        if encoding and encoding != b"identity":
            # RFC 9110 section 15.5.16: 415 is for codings too. A body that unpacks itself could not be limited.
            raise UnsupportedCoding("send the body as it is: content-encoding is not taken")

    def _too_large(self) -> PayloadTooLarge:
        limit = self._max_body_bytes
        return PayloadTooLarge(f"the body is more than {limit} bytes", limit_bytes=limit)

    def _meter(self, method: str, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        labels = (method if method in _METHODS else "other", route, status)
        meters = self._meters.get(labels)
        if meters is None:
            meters = self._meters[labels] = (
                self._metrics.http_requests.labels(labels[0], route, str(status)),
                self._metrics.http_seconds.labels(labels[0], route),
            )
        meters[0].inc()
        meters[1].observe(seconds)


def _refusal(scope: Scope, head_bytes: int) -> InvalidRequest | None:
    """Of a request that asks for more of our time and memory in its head than any honest one."""
    if head_bytes > HEAD_MAX_BYTES or len(scope["headers"]) > HEADERS_MOST:
        most = f"more than {HEAD_MAX_BYTES} bytes of headers, or than {HEADERS_MOST} of them"
        return InvalidRequest(most, code=HEAD_TOO_LARGE)
    if len(scope["path"]) + len(scope["query_string"]) > URI_MAX_BYTES:
        return InvalidRequest(f"the address is longer than {URI_MAX_BYTES} bytes", code=URI_TOO_LONG)
    return None
