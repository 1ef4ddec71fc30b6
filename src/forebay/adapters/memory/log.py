"""What the queue and the event log of one memory backend share: requests and events in one order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from forebay.core.message import Message


class MemoryLog:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._grew = asyncio.Event()

    def append(self, messages: Iterable[Message]) -> None:
        self.messages += messages
        self._grew.set()
        self._grew = asyncio.Event()

    async def longer_than(self, length: int) -> None:
        """Wait until it holds more than `length` messages."""
        while len(self.messages) <= length:
            await self._grew.wait()
