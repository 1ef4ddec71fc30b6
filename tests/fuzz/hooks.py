"""What schemathesis asks of us where it cannot know better; and what of its checks is narrowed, with the reasons."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import schemathesis

_KEY_CHARS = 245
"""With the number of its use behind it, a longer key could be too long."""

_UUID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

Body = Mapping[str, Any]


def _is_of_url(place: Body) -> bool:
    return str(place.get("pointer") or place.get("parameter")).endswith("url")


class Narrowed:
    """A failure of `check` that is none, where the answer is `told`: why it is right, and which test holds the API to
    it in place of the check."""

    def __init__(self, check: str, told: Callable[[Body], bool], why: str, test: str) -> None:
        self.check = check
        self.told = told
        self.why = why
        self.test = test


NARROWED = (
    Narrowed(
        "RejectedPositiveData",
        lambda body: body.get("code") == "idempotency_key_reused",
        "An id that is there already names the request that came with it, and no schema can tell which.",
        "tests/unit/api/test_idempotency.py, tests/unit/api/test_batches.py",
    ),
    Narrowed(
        "RejectedPositiveData",
        lambda body: body.get("code") in ("job_gone", "input_gone"),
        "Somebody deleted the job, or it was retained for as short as was asked; no schema can tell.",
        "tests/unit/api/test_delete.py, tests/unit/api/test_retrying.py",
    ),
    Narrowed(
        "AcceptedNegativeData",
        lambda body: bool(body.get("rejected")),
        "A wrong line of a batch is rejected by itself, and the others are taken.",
        "tests/unit/api/test_batches.py",
    ),
    Narrowed(
        "RejectedPositiveData",
        lambda body: body.get("code") in ("job_failed", "job_canceled", "job_expired"),
        "There is no output to fetch, and no schema of a request can tell how the job ended.",
        "tests/unit/api/test_reading.py",
    ),
    Narrowed(
        "RejectedPositiveData",
        lambda body: "is no UUID" in body.get("detail", ""),
        "An id of ours is no UUID of the caller's: what links two operations is put in whatever the pattern says.",
        "tests/unit/api/test_idempotency.py",
    ),
    Narrowed(
        "RejectedPositiveData",
        lambda body: bool(body.get("errors")) and all(map(_is_of_url, body["errors"])),
        "Which addresses may be called is for the settings to say, and for no schema.",
        "tests/unit/api/test_endpoints.py",
    ),
    Narrowed(
        "RejectedPositiveData",
        lambda body: body.get("code") == "too_many_endpoints",
        "How many a tenant has already no schema can tell.",
        "tests/unit/api/test_endpoints.py",
    ),
)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    if response is None or "json" not in "".join(response.headers.get("content-type", ())):
        return True
    body = response.json()
    return not any(type(failure).__name__ == one.check and one.told(body) for one in NARROWED)


@schemathesis.serializer(
    "application/jsonl", "application/json-lines", "application/x-jsonlines", "application/x-ndjson"
)
def lines(context: Any, value: Any) -> bytes:
    """A file of lines is sent as the text that it is. What is wrong in one line is told of that line, in a 202."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """The service that is tested has keys, so nobody comes in without one: then `ignored_auth` holds it to that."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            operation["security"] = [way for way in operation["security"] if way]


_uses = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Two changes of what is sent.

    A key, and a UUID that a caller chose, name one request: one that comes again with another request is refused, and
    then nothing of that request is tried. So each is made one of its own; tests/unit/api/test_idempotency.py uses them
    twice.

    A cursor is opaque: a schema that told which ones are ours would have callers make their own. So one that is made up
    is left out of what should be taken, and the other filters are tried; tests/unit/api/test_reading.py goes from page
    to page.
    """
    use = next(_uses)
    key = (case.headers or {}).get("Idempotency-Key")
    if key and len(key) <= _KEY_CHARS:
        case.headers["Idempotency-Key"] = f'{key[:-1]}{use}"' if key.startswith('"') else f"{key}{use}"
    for name, value in (case.path_parameters or {}).items():
        if case.method == "PUT" and _UUID.fullmatch(str(value)):
            case.path_parameters[name] = f"{value[:-8]}{use:08x}"
    if case.meta is not None and case.meta.generation.mode.is_positive:
        case.query.pop("cursor", None)
