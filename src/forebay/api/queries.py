"""Values out of a query string."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from starlette.requests import Request

from forebay.api.prefer import WAIT_MAX_S
from forebay.api.problems import InvalidQuery
from forebay.api.submission import WEBHOOK_POINTER
from forebay.core.errors import InvalidRequest
from forebay.core.times import from_rfc3339


def whole(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """Raises InvalidQuery for what is no whole number between these."""
    text = query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise InvalidQuery(name, f"a whole number from {least} to {most}")


def time(query: Mapping[str, str], name: str) -> float | None:
    """Raises InvalidQuery for what is no time with an offset."""
    text = query.get(name)
    if text is None:
        return None
    try:
        return from_rfc3339(text.replace(" ", "+"))  # a "+" that nobody encoded
    except ValueError as error:
        raise InvalidQuery(name, "a time with its offset, such as 2026-11-28T18:00:00Z") from error


def refuse_query(request: Request, *, waits: bool = False) -> None:
    """What is asked for where nobody looks would be ignored in silence. `waits`: the header `prefer` can say a wait.
    Raises InvalidQuery."""
    if request.scope["query_string"]:
        for name, text in request.query_params.items():
            if waits and name == "wait":
                raise wait_in_query(text)
            raise InvalidQuery(name, "this takes nothing in its query")


@contextmanager
def said_in_query() -> Iterator[None]:
    """What no job may say is told as the query parameter that it came in. Raises InvalidQuery."""
    try:
        yield
    except InvalidRequest as error:
        name = error.pointer.removeprefix("/")
        if error.pointer == WEBHOOK_POINTER:
            raise InvalidQuery("webhook_url", error.message) from error
        if name in ("start_within_s", "run_timeout_s", "retain_s"):
            raise InvalidQuery(name, error.message.removeprefix(f"{name} ")) from error
        raise


def wait_in_query(text: str) -> InvalidQuery:
    """That a wait belongs into a header."""
    seconds = text if text.isascii() and text.isdigit() and len(text) < 3 else WAIT_MAX_S
    return InvalidQuery("wait", f"use the header prefer: wait={seconds}")
