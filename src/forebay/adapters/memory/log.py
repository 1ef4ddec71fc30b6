"""What the queue and the event log of one memory backend share: requests and events in one order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from forebay.core.log_clock import LogClock
from forebay.core.message import Message


class MemoryLog:
    """`wall` and `elapsed` are what its clock is made of. `logged_at` has a time for each message."""

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = time.monotonic) -> None:
        self.clock = LogClock(0.0, wall=wall, elapsed=elapsed)
        self.messages: list[Message] = []
        self.logged_at: list[float] = []
        self._grew = asyncio.Event()

    def append(self, messages: Iterable[Message]) -> None:
        self.messages += messages
        self.logged_at += [self.clock.now()] * (len(self.messages) - len(self.logged_at))
        self._grew.set()
        self._grew = asyncio.Event()

    async def longer_than(self, length: int) -> None:
        """Wait until it holds more than `length` messages."""
        while len(self.messages) <= length:
            await self._grew.wait()
