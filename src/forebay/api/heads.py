"""Values out of a request's headers."""

from __future__ import annotations

from starlette.requests import Request


def header_values(request: Request, name: bytes) -> list[str]:
    """All values of the header `name`, which is in lower case, in their order.

    Starlette's `Headers` says the same at several times the cost, most of all that a header is not there; on the submit
    route that cost is visible.
    """
    return [value.decode("latin-1") for given, value in request.scope["headers"] if given == name]


def header_value(request: Request, name: bytes) -> str | None:
    """The first; None where there is none."""
    for given, value in request.scope["headers"]:
        if given == name:
            text: str = value.decode("latin-1")
            return text
    return None
