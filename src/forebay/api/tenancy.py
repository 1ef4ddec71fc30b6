"""Whose request it is."""

from __future__ import annotations

from starlette.requests import Request

DEFAULT_TENANT = "default"


def tenant_of(request: Request) -> str:
    """The tenant on whose behalf the request is made. Until API keys exist there is one."""
    return DEFAULT_TENANT
