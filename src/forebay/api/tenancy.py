"""Whose request it is."""

from __future__ import annotations

from starlette.requests import Request

DEFAULT_TENANT = "default"
"""Everybody, where nobody is asked for a key; and whoever writes to Kafka without being anybody else's."""

_TENANT = "forebay.tenant"


def set_tenant(request: Request, tenant: str) -> None:
    request.scope[_TENANT] = tenant


def tenant_of(request: Request) -> str:
    """The tenant on whose behalf the request is made, who was let in (`gate.py`). A KeyError: a route that asks for it
    and let in everybody."""
    tenant: str = request.scope[_TENANT]
    return tenant
