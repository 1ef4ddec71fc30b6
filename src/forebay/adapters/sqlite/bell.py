"""Waking coroutines that wait for rows."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes those who wait at the moment it rings, and nobody later.

    So look first, and `wait` only when there is nothing, with no await between. Used on one event loop.
    """

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)

    async def wait(self, timeout_s: float) -> None:
        """Until the next ring, at most `timeout_s`."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _wake, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
