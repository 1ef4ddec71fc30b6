"""What a worker takes in: the lanes of one model, shared by weight."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from forebay.core.errors import Revoked, Unavailable
from forebay.core.event import JobError
from forebay.core.lanes import Lane, LaneWheel
from forebay.core.message import ReceivedMessage
from forebay.core.times import from_rfc3339
from forebay.ports.queue import Consumer


class Intake:
    """One consumer per lane behind one `receive`.

    `released` is set whenever `in_hand` falls.
    """

    def __init__(self, consumers: Mapping[Lane, Consumer], clock: Callable[[], float] = time.time) -> None:
        self._consumers = dict(consumers)
        self._clock = clock
        self._wheel = LaneWheel()
        self._ages_s: dict[Lane, float] = {}  # of what came last from each lane, which is about its oldest
        # What came from a lane stays here until a `receive` returns it: so neither a cancel, nor another lane that is
        # away, nor lanes that deliver more than there is room for in the same instant can lose any of it.
        self._arrived: list[tuple[Lane, ReceivedMessage]] = []
        self._in_hand: set[tuple[Lane, Hashable]] = set()  # not a count: a job may be let go of twice
        self.released = asyncio.Event()

    @property
    def in_hand(self) -> int:
        """How many were received and neither acknowledged nor given back."""
        return len(self._in_hand)

    async def receive(self, max_messages: int, wait_s: float) -> list[tuple[Lane, ReceivedMessage]]:
        """Up to `max_messages` from whichever lanes have any, by weight; [] after `wait_s` without one.

        Raises Unavailable if a lane is away and no other has anything. Cancellation loses nothing.
        """
        try:
            await self._take(max_messages)
            if not self._arrived and wait_s > 0:
                await self._wait(max_messages, wait_s)
        except Unavailable:
            if not self._arrived:
                raise
        taken, self._arrived = self._arrived[:max_messages], self._arrived[max_messages:]
        self._in_hand.update((lane, received.receipt) for lane, received in taken)
        return taken

    async def _take(self, max_messages: int) -> None:
        """What is there, in turns."""
        candidates = set(self._consumers)
        while candidates and len(self._arrived) < max_messages:
            lane = self._wheel.turn(sorted(candidates, key=list(Lane).index), self._ages_s)
            share = 1 if len(candidates) > 1 else max_messages - len(self._arrived)
            received = await self._consumers[lane].receive(share, 0.0)
            if received:
                self._ages_s[lane] = self._age_s(received[-1])
            else:
                candidates.discard(lane)
                self._ages_s.pop(lane, None)
            self._arrived += [(lane, one) for one in received]

    def _age_s(self, received: ReceivedMessage) -> float:
        """For how long it has waited; 0.0 for a message that does not say when it was accepted."""
        try:
            return self._clock() - from_rfc3339(received.message.headers["ce_time"])
        except (KeyError, ValueError):
            return 0.0

    async def _wait(self, max_messages: int, wait_s: float) -> None:
        """Until any lane has something."""

        async def arrive(lane: Lane, consumer: Consumer) -> None:
            received = await consumer.receive(max_messages, wait_s)
            self._arrived += [(lane, one) for one in received]

        tasks = [asyncio.create_task(arrive(lane, consumer)) for lane, consumer in self._consumers.items()]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):  # a task that was cancelled is none
                raise error

    def holds(self, one: tuple[Lane, ReceivedMessage]) -> bool:
        """As Consumer.holds."""
        lane, received = one
        return self._consumers[lane].holds(received)

    def drop(self, taken_away: Sequence[tuple[Lane, ReceivedMessage]]) -> None:
        """These are in no hand of ours any more: nothing is to be said of them."""
        self._release(taken_away)

    async def ack(self, done: Sequence[tuple[Lane, ReceivedMessage]]) -> None:
        for lane, members in _by_lane(done):
            await self._consumers[lane].ack(members)
            self._release((lane, received) for received in members)

    async def reject(self, dead: tuple[Lane, ReceivedMessage], error: JobError) -> None:
        """As Consumer.reject, for one."""
        lane, received = dead
        await self._consumers[lane].reject([received], error)
        self._release([dead])

    async def begin(self, starting: Sequence[tuple[Lane, ReceivedMessage]]) -> None:
        """As Consumer.begin: all of them or none, though they be of several lanes."""
        if not all(self.holds(one) for one in starting):
            raise Revoked("messages are to be begun that are no longer in hand")
        begun: list[tuple[Lane, list[ReceivedMessage]]] = []
        try:
            for lane, members in _by_lane(starting):
                await self._consumers[lane].begin(members)
                begun.append((lane, members))
        except BaseException:  # a cancel too
            for lane, members in begun:
                with contextlib.suppress(Unavailable):  # an attempt too many is counted: what happened is worse
                    await self._consumers[lane].retract(members)
            raise

    async def nack(self, returned: Sequence[tuple[Lane, ReceivedMessage]], delay_s: float = 0.0) -> None:
        for lane, members in _by_lane(returned):
            await self._consumers[lane].nack(members, delay_s)
            self._release((lane, received) for received in members)

    def delay_of(self, one: tuple[Lane, ReceivedMessage], delay_s: float) -> float:
        """As Consumer.delay_of."""
        lane, _ = one
        return self._consumers[lane].delay_of(delay_s)

    def _release(self, let_go: Iterable[tuple[Lane, ReceivedMessage]]) -> None:
        self._in_hand.difference_update((lane, received.receipt) for lane, received in let_go)
        self.released.set()

    async def close(self) -> None:
        """All lanes at once: a backend that is away is waited for in each of them."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers.values()))


def _by_lane(pairs: Sequence[tuple[Lane, ReceivedMessage]]) -> list[tuple[Lane, list[ReceivedMessage]]]:
    grouped: dict[Lane, list[ReceivedMessage]] = {}
    for lane, received in pairs:
        grouped.setdefault(lane, []).append(received)
    return list(grouped.items())
