"""The queue: one heap of waiting messages per channel."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from forebay.adapters.memory.log import MemoryLog
from forebay.core.errors import Revoked
from forebay.core.event import JobError
from forebay.core.message import Channel, JobKey, Message, ReceivedMessage
from forebay.ports.queue import Consumer, Durability, Queue, QueueFeatures


class _Item(Struct, eq=False):
    seq: int
    message: Message
    logged_at: float
    attempt: int = 0
    running: bool = False
    cut_off: int = 0
    due_at: float = 0.0


class _Waiting:
    """The messages of one channel that are in nobody's hands, by the time they are due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Item]] = []
        self._arrived = asyncio.Event()
        self.unacknowledged = 0

    def put(self, item: _Item) -> None:
        heapq.heappush(self._heap, (item.due_at, item.seq, item))
        self._arrived.set()
        self._arrived = asyncio.Event()

    def take(self, limit: int, now: float) -> list[_Item]:
        items: list[_Item] = []
        while len(items) < limit and self._heap and self._heap[0][0] <= now:
            items.append(heapq.heappop(self._heap)[2])
        return items

    async def changed(self, now: float, at_most_s: float) -> None:
        """Wait until something is put, or until the first delayed message is due."""
        due_s = self._heap[0][0] - now if self._heap else at_most_s
        try:
            async with asyncio.timeout(min(at_most_s, due_s)):
                await self._arrived.wait()
        except TimeoutError:
            return


class MemoryQueue(Queue):
    """`clock` gives seconds since the epoch; only delays depend on it."""

    def __init__(self, shared: MemoryLog, clock: Callable[[], float] = time.time) -> None:
        self._log = shared
        self._clock = clock
        self._seq = itertools.count()
        self._channels: dict[Channel, _Waiting] = {}

    @property
    def features(self) -> QueueFeatures:
        return QueueFeatures(survives_restart=False, durability=Durability.MEMORY)

    async def publish(self, channel: Channel, messages: Sequence[Message]) -> None:
        waiting = self._waiting(channel)
        self._log.append(messages)
        waiting.unacknowledged += len(messages)
        for message in messages:
            waiting.put(_Item(next(self._seq), message, self._log.logged_at[-1]))

    def consumer(self, channel: Channel) -> Consumer:
        return MemoryConsumer(self._waiting(channel), self._clock)

    async def depth(self, channel: Channel) -> int:
        return self._waiting(channel).unacknowledged

    async def forget(self, jobs: Sequence[JobKey], *, wholly: bool = False) -> None:
        """Nothing: all of it goes with the process."""

    async def forward_delayed(self) -> None:
        await asyncio.Event().wait()  # what is due comes by itself

    def _waiting(self, channel: Channel) -> _Waiting:
        return self._channels.setdefault(channel, _Waiting())


class MemoryConsumer(Consumer):
    """A receipt is the message's number."""

    def __init__(self, waiting: _Waiting, clock: Callable[[], float]) -> None:
        self._waiting = waiting
        self._clock = clock
        self._hand: dict[Any, _Item] = {}

    async def receive(self, max_messages: int, wait_s: float) -> list[ReceivedMessage]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            now = self._clock()
            items = self._waiting.take(max_messages, now)
            remaining_s = deadline - loop.time()
            if items or remaining_s <= 0:
                self._hand.update((item.seq, item) for item in items)
                return [_received(item) for item in items]
            await self._waiting.changed(now, remaining_s)

    def holds(self, received: ReceivedMessage) -> bool:
        return received.receipt in self._hand

    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        if not all(self.holds(one) for one in received):
            raise Revoked("messages are to be begun that are no longer in hand")
        for one in received:
            item = self._hand[one.receipt]
            item.attempt += 1
            item.running = True

    async def retract(self, received: Sequence[ReceivedMessage]) -> None:
        for one in received:
            if (item := self._hand.get(one.receipt)) and item.running:
                item.attempt -= 1
                item.running = False

    async def ack(self, received: Sequence[ReceivedMessage]) -> None:
        for one in received:
            if self._hand.pop(one.receipt, None):
                self._waiting.unacknowledged -= 1

    async def reject(self, received: Sequence[ReceivedMessage], error: JobError) -> None:
        await self.ack(received)

    async def nack(self, received: Sequence[ReceivedMessage], delay_s: float = 0.0) -> None:
        due_at = self._clock() + delay_s if delay_s > 0 else 0.0
        for one in received:
            if item := self._hand.pop(one.receipt, None):
                item.due_at = due_at
                item.running = False
                self._waiting.put(item)

    def delay_of(self, delay_s: float) -> float:
        return delay_s

    async def close(self) -> None:
        for item in self._hand.values():
            self._waiting.put(item)
        self._hand.clear()


def _received(item: _Item) -> ReceivedMessage:
    if item.running:
        item.cut_off += 1
        item.running = False
    return ReceivedMessage(
        message=item.message,
        receipt=item.seq,
        attempt=item.attempt,
        interruptions=item.cut_off,
        logged_at=item.logged_at,
    )
