"""Waiting on the event loop for something that may happen at any time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable


class Bell:
    """Wakes whoever waits now; nobody waits later for what rang before. Used on one event loop."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Until it rings, or `timeout_s`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)


async def blocking(call: Callable[[], None], name: str) -> None:
    """`call()` in a thread of its own. Whoever stops waiting leaves it to itself: it holds up no end of the process, as
    a thread of the loop's pool would."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def end(error: BaseException | None) -> None:
        if over.done():
            return
        if error is None:
            over.set_result(None)
        else:
            over.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            call()
        except Exception as exc:  # whoever waits raises it
            error = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(end, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    await over
