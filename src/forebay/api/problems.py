"""Errors as `application/problem+json` (RFC 9457). The only place that knows which error is which HTTP status.

`type` is left out, which means `about:blank` and makes `title` the status phrase (RFC 9457 section 4.2.1); what a
program reads is `code`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from starlette.types import Scope

from forebay.api.answers import NO_STORE, PROBLEM_TYPE, Answer, Header, header
from forebay.core.errors import (
    Conflict,
    Forbidden,
    ForebayError,
    Gone,
    InvalidRequest,
    Misconfigured,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)

log = structlog.get_logger()

MALFORMED = "malformed_json"
BAD_REQUEST = "bad_request"
HEAD_TOO_LARGE = "headers_too_large"
URI_TOO_LONG = "uri_too_long"
PATH_SHOWN_CHARS = 2000
"""Of a longer path the beginning is told: every character may become three."""
TOO_MANY_LINES = "too_many_lines"
_AWAY = "Jobs can be neither stored nor read just now; the service's log has the reason under this request id."
_NO_METRICS = "Metrics are on the admin port (FOREBAY_ADMIN_PORT, loopback by default), not on this one."
_UNKNOWN = "Nobody can say whether the job was stored; look for job_id later, before the same is submitted again."
_PARTLY = "Not every line is accepted; send the same file once more: PUT /v1/batches/{}. No line becomes a second job."
REQUEST_ID = "forebay.request_id"
"""Key of the request's id in an ASGI scope; `edge.py` sets it."""

_CHALLENGE: Header = (b"www-authenticate", b'Bearer realm="forebay"')
"""What a 401 must say (RFC 9110 section 11.6.1)."""

CLOSE: Header = (b"connection", b"close")
"""For when the rest of the body is not read: without closing, the server would have to swallow all of it."""

_STATUS_BY_CODE = {
    MALFORMED: 400,
    BAD_REQUEST: 400,
    HEAD_TOO_LARGE: 431,
    URI_TOO_LONG: 414,
    TOO_MANY_LINES: 413,
}
_STATUS_BY_ERROR: Mapping[type[ForebayError], int] = {
    UnsupportedMedia: 415,
    PayloadTooLarge: 413,
    InvalidRequest: 422,
    NotFound: 404,
    Gone: 410,
    Conflict: 409,
    Unauthorized: 401,
    TooMany: 429,
    Forbidden: 403,
    Unavailable: 503,
}
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"]+/)*(?=[^\s/'\"])")
_CODES_OF_ROUTER = {404: "route_not_found", 405: "method_not_allowed"}
_encode = msgspec.json.Encoder().encode


class InvalidFields(InvalidRequest):
    """Several mistakes in one request: `errors` holds (JSON pointer into the body, what is wrong there)."""

    def __init__(self, message: str, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__(message, pointer=errors[0][0])
        self.errors = tuple(errors)


class UnsupportedCoding(UnsupportedMedia):
    """The body came with a content coding such as gzip."""


class Overloaded(Unavailable):
    """There is no room for this request just now. Nothing of its body was read, or not all."""

    code = "overloaded"


class InvalidQuery(InvalidRequest):
    """A query parameter that cannot be."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


class InvalidHeader(InvalidRequest):
    """A header that cannot be."""

    def __init__(self, header: str, message: str) -> None:
        super().__init__(f"{header}: {message}")
        self.header = header


def problem(
    scope: Scope, status: int, code: str, detail: str, *, headers: Sequence[Header] = (), **members: Any
) -> Answer:
    """An error answer. `members` are extension members (RFC 9457 section 3.2); those that are None are left out."""
    document = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "instance": quote(scope.get("path", "")[:PATH_SHOWN_CHARS]),
        "request_id": scope.get(REQUEST_ID),
        **members,
    }
    body = _encode({name: value for name, value in document.items() if value is not None})
    return Answer(status, body, (PROBLEM_TYPE, NO_STORE, *headers))


def problem_of(scope: Scope, error: ForebayError, **more: Any) -> Answer:
    """The answer to an error that Forebay raised on purpose, with `more` members. What the operator must mend is
    logged, not told; so is what is away, whose names and numbers are the machine's."""
    status = status_of(error)
    if status == 500:
        log.error("request.failed", request_id=scope.get(REQUEST_ID), code=error.code, exc_info=error)
        return problem(scope, 500, error.code, "The service is at fault; its log has the reason.", **more)
    headers: tuple[Header, ...] = ()
    members: dict[str, Any] = dict(more)
    detail = error.message
    if isinstance(error, PayloadTooLarge):
        headers = (CLOSE,)
        members["limit_bytes"] = error.limit_bytes
    elif isinstance(error, UnsupportedCoding):
        headers = ((b"accept-encoding", b"identity"),)
    elif isinstance(error, UnsupportedMedia):
        members["accepted"] = error.accepted or None
        if error.accepted:
            headers = (header("accept-post", ", ".join(error.accepted)),)
    elif isinstance(error, InvalidRequest) and status == 422:
        members["errors"] = _places(error)
    elif isinstance(error, NotFound):
        members["known"] = error.known or None
    elif isinstance(error, Unauthorized):
        headers = (_CHALLENGE,)
    elif isinstance(error, TooMany):
        members["retry_after_s"] = error.retry_after_s
        headers = (retry_after(error.retry_after_s),)
    elif isinstance(error, Conflict) and error.retryable:
        members["retry_after_s"] = 1.0
        headers = (retry_after(1.0),)
    elif isinstance(error, Unavailable):
        log.warning("request.unavailable", request_id=scope.get(REQUEST_ID), code=error.code, error=error.message)
        members["retry_after_s"] = error.retry_after_s
        headers = (retry_after(error.retry_after_s),)
        if isinstance(error, Overloaded):
            headers += (CLOSE,)
        elif "batch_id" in members:
            detail = _PARTLY.format(members["batch_id"])
        elif isinstance(error, OutcomeUnknown):
            detail, members["job_id"] = _UNKNOWN, error.job_id
        else:
            detail = _AWAY
    return problem(scope, status, error.code, detail, headers=headers, **members)


def problem_of_status(scope: Scope, status: int, headers: Mapping[str, str]) -> Answer:
    """The answer to what the router or the framework refuses."""
    code = _CODES_OF_ROUTER.get(status, "internal" if status >= 500 else BAD_REQUEST)
    method, path = scope.get("method", ""), scope.get("path", "")
    detail = {
        404: _NO_METRICS if path == "/metrics" else f"Nothing is at {path}; /docs lists what there is.",
        405: f"{method} is not possible at {path}.",
    }.get(status, HTTPStatus(status).phrase)
    return problem(
        scope, status, code, detail, headers=[header(name.lower(), value) for name, value in headers.items()]
    )


def internal(scope: Scope) -> Answer:
    """The answer to an error that nobody foresaw: it tells nothing of the inside."""
    return problem(scope, 500, "internal", "The service is at fault; its log has the reason under this request id.")


def status_of(error: ForebayError) -> int:
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    if isinstance(error, Misconfigured):
        return 500
    return next((status for kind, status in _STATUS_BY_ERROR.items() if isinstance(error, kind)), 500)


def fragment(pointer: str) -> str:
    """A JSON pointer as a URI fragment (RFC 6901 section 6): `#/input/0`."""
    return "#" + quote(pointer, safe="/~!$&'()*+,;=:@")


def pointer_to(path: Sequence[str | int]) -> str:
    """`["input", "a/b", 0]` -> `/input/a~1b/0` (RFC 6901 section 3)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def without_folders(text: str) -> str:
    """`text` with the last parts only of absolute paths in it: the machine's folders are nobody's business."""
    return _FOLDERS.sub("", text)


def retry_after(seconds: float) -> Header:
    """Whole seconds, rounded up (RFC 9110 section 10.2.3)."""
    return header("retry-after", str(max(1, math.ceil(seconds))))


def _places(error: InvalidRequest) -> list[dict[str, str]]:
    if isinstance(error, InvalidQuery):
        return [{"parameter": error.parameter, "detail": error.message}]
    if isinstance(error, InvalidHeader):
        return [{"header": error.header, "detail": error.message}]
    errors = error.errors if isinstance(error, InvalidFields) else ((error.pointer, error.message),)
    return [{"pointer": fragment(pointer), "detail": detail} for pointer, detail in errors]
