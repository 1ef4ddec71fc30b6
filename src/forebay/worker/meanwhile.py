"""Something that goes on beside what a block waits for, and is over when the block is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any


class Meanwhile:
    """`async with Meanwhile() as meanwhile: meanwhile.do(...)`: the block is left when that is over too, whatever error
    it is left with; cancelled with the block. Unlike a task group it passes on the error of the block as it is."""

    def __init__(self) -> None:
        self._going_on: list[asyncio.Task[None]] = []

    def do(self, what: Coroutine[Any, Any, None]) -> None:
        self._going_on.append(asyncio.create_task(what))

    async def __aenter__(self) -> Meanwhile:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            for one in self._going_on:
                one.cancel()
        await asyncio.gather(*self._going_on)
