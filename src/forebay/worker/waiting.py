"""Waiting for an event for a bounded time."""

from __future__ import annotations

import asyncio


async def wait_for(event: asyncio.Event, timeout_s: float | None) -> bool:
    """True when `event` is set, False after `timeout_s`; None waits for ever."""
    if timeout_s is None or event.is_set():
        return await event.wait()
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
