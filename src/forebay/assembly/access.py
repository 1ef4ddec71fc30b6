"""Who is let in: the first key, and the refusal to open a service to others without one."""

from __future__ import annotations

import time
from ipaddress import ip_address
from pathlib import Path

import structlog

from forebay.api.tenancy import DEFAULT_TENANT
from forebay.core.api_key import ApiKey, Scope, of_secret
from forebay.core.errors import InvalidRequest, Misconfigured
from forebay.ports.api_keys import ApiKeys
from forebay.settings import Settings

log = structlog.get_logger()

FIRST_SCOPES = (Scope.SUBMIT, Scope.READ, Scope.CANCEL, Scope.ADMIN)


async def prepare_access(settings: Settings, keys: ApiKeys) -> bool:
    """Takes in the key of `api_key_file`; whether callers are asked for a key. Raises Misconfigured for a file that
    holds none, and for an address that others can reach where nobody is asked."""
    if settings.api_key_file:
        key = _read(Path(settings.api_key_file))
        known = await keys.get(key.id)
        if known is None:
            await keys.put(key)
            log.info("api_key.added", key=key.id, file=settings.api_key_file)
        elif known.digest != key.digest or (state := known.state(time.time())) != "active":
            why = "is not the one of this id" if known.digest != key.digest else f"is {state}"
            raise Misconfigured(f"api_key_file: the key in {settings.api_key_file} {why}; put a new one there")
    if await keys.all():
        return True
    if not settings.allow_unauthenticated and not is_loopback(settings.host):
        raise Misconfigured(
            f"host: other machines can reach {settings.host!r}, and there is no API key; make one with `forebay keys "
            "create`, or give the first one with api_key_file (FOREBAY_API_KEY_FILE); or leave host at 127.0.0.1. Set "
            "allow_unauthenticated (FOREBAY_ALLOW_UNAUTHENTICATED) to true only if something in front asks who calls"
        )
    return False


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name and no address
        return host == "localhost"


def _read(path: Path) -> ApiKey:
    try:
        token = path.read_text(encoding="utf-8").strip()
        return of_secret(token, tenant=DEFAULT_TENANT, name="first", scopes=FIRST_SCOPES, now=time.time())
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"api_key_file: {path} cannot be read: {error}") from error
    except InvalidRequest as error:
        raise Misconfigured(f"api_key_file: {path}: {error.message}") from error
