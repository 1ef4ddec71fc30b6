"""What a worker takes in: the lanes of one model, shared by weight."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from forebay.core.lanes import Lane, LaneWheel
from forebay.core.message import ReceivedMessage
from forebay.ports.queue import Consumer


class Intake:
    """One consumer per lane behind one `receive`.

    `in_hand` counts what was received and neither acknowledged nor given back; `released` is set whenever it falls.
    """

    def __init__(self, consumers: Mapping[Lane, Consumer]) -> None:
        self._consumers = dict(consumers)
        self._wheel = LaneWheel()
        self.in_hand = 0
        self.released = asyncio.Event()

    async def receive(self, max_messages: int, wait_s: float) -> list[tuple[Lane, ReceivedMessage]]:
        """Up to `max_messages` from whichever lanes have any, by weight; [] after `wait_s` without one."""
        taken = await self._take(max_messages)
        if not taken and wait_s > 0:
            lane, received = await self._first(max_messages, wait_s)
            taken = [(lane, one) for one in received]
        self.in_hand += len(taken)
        return taken

    async def _take(self, max_messages: int) -> list[tuple[Lane, ReceivedMessage]]:
        taken: list[tuple[Lane, ReceivedMessage]] = []
        candidates = set(self._consumers)
        while candidates and len(taken) < max_messages:
            lane = self._wheel.turn(sorted(candidates, key=list(Lane).index))
            share = 1 if len(candidates) > 1 else max_messages - len(taken)
            received = await self._consumers[lane].receive(share, 0.0)
            if not received:
                candidates.discard(lane)
            taken += [(lane, one) for one in received]
        return taken

    async def _first(self, max_messages: int, wait_s: float) -> tuple[Lane, list[ReceivedMessage]]:
        """Wait on all lanes; whatever a second lane gave in the same instant is handed back to it."""
        tasks = {
            asyncio.create_task(consumer.receive(max_messages, wait_s)): lane
            for lane, consumer in self._consumers.items()
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        winner: tuple[Lane, list[ReceivedMessage]] = (Lane.NORMAL, [])
        for task, lane in tasks.items():
            received = [] if task.cancelled() else task.result()
            if received and not winner[1]:
                winner = (lane, received)
            elif received:
                await self._consumers[lane].nack(received)
        return winner

    async def ack(self, done: Sequence[tuple[Lane, ReceivedMessage]]) -> None:
        for lane, members in _by_lane(done):
            await self._consumers[lane].ack(members)
            self._release(len(members))

    async def begin(self, starting: Sequence[tuple[Lane, ReceivedMessage]]) -> None:
        for lane, members in _by_lane(starting):
            await self._consumers[lane].begin(members)

    async def nack(self, returned: Sequence[tuple[Lane, ReceivedMessage]], delay_s: float = 0.0) -> None:
        for lane, members in _by_lane(returned):
            await self._consumers[lane].nack(members, delay_s)
            self._release(len(members))

    def _release(self, count: int) -> None:
        self.in_hand -= count
        self.released.set()

    async def close(self) -> None:
        for consumer in self._consumers.values():
            await consumer.close()


def _by_lane(pairs: Sequence[tuple[Lane, ReceivedMessage]]) -> list[tuple[Lane, list[ReceivedMessage]]]:
    grouped: dict[Lane, list[ReceivedMessage]] = {}
    for lane, received in pairs:
        grouped.setdefault(lane, []).append(received)
    return list(grouped.items())
