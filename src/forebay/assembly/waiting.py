"""Waiting for what a service needs and may have been started before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from forebay.core.errors import Unavailable

T = TypeVar("T")

log = structlog.get_logger()


async def until_there(what: str, ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` gives, asked again for as long as it raises Unavailable."""
    while True:
        try:
            return await ask()
        except Unavailable as error:
            log.warning("backend.awaited", backend=what, reason=error.message)
            await asyncio.sleep(error.retry_after_s)
