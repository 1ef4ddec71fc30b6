"""Brings delayed messages back when they are due, and keeps the clocks of jobs. Several may run side by side."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from forebay.core.errors import Unavailable
from forebay.ports.queue import Queue
from forebay.scheduler.timekeeper import Timekeeper

log = structlog.get_logger()


class Scheduler:
    def __init__(self, queue: Queue, timekeeper: Timekeeper) -> None:
        self._queue = queue
        self._timekeeper = timekeeper
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """`run()` returns when what is under way is forwarded: the rest waits for the next scheduler."""
        self._stopping.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            timekeeping = tasks.create_task(self._timekeeper.run(), name="timekeeper")
            await self._keep_forwarding()
            timekeeping.cancel()

    async def _keep_forwarding(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._forward()
            except Unavailable as error:
                log.warning("scheduler.backend_away", error=error.message)
                with contextlib.suppress(TimeoutError):  # not stopped: it tries again
                    async with asyncio.timeout(error.retry_after_s):
                        await self._stopping.wait()

    async def _forward(self) -> None:
        """Until `stop()`. Raises what the forwarding raises."""
        forwarding = asyncio.create_task(self._queue.forward_delayed())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({forwarding, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (forwarding, stopping):
                task.cancel()
            await asyncio.wait({forwarding, stopping})
        if not forwarding.cancelled():
            forwarding.result()
