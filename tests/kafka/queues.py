"""Queues on a real broker: topics with a prefix of their own, consumers in this process and in others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.kafka.client import create_topics, open_up

from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.adapters.kafka.records import to_record
from forebay.core.errors import Revoked, Unavailable
from forebay.core.message import Channel, ReceivedMessage
from forebay.ports.queue import Consumer, Durability
from forebay.testing.samples import message

CHANNEL = Channel("sample", "normal")
CHILD = Path(__file__).with_name("consuming_child.py")
WITHIN_S = 60.0
SESSION_S = 6.0
"""As the brokers of dev/kafka have it under the other protocol: after so long the silent are taken for dead."""

TIERS: Mapping[str, float] = {"short": 0.05, "long": 60.0}


class KafkaPlace:
    """Where a test's queues live. `settings` are those of KafkaQueue."""

    def __init__(self, bootstrap: str, *, partitions: int = 4, **settings: Any) -> None:
        self.link = KafkaLink(bootstrap=bootstrap, prefix=f"test-{uuid.uuid4().hex[:12]}")
        self.names = self.link.names
        self.topic = self.names.requests_topic(CHANNEL)
        self.settings = {"session_timeout_s": SESSION_S, "drain_s": 1.0, "publish_wait_s": 10.0, **settings}
        retry = {self.names.retry_prefix + tier: 1 for tier in TIERS}
        create_topics(bootstrap, {self.topic: partitions, self.names.dlq_topic: 1, **retry})

    @contextlib.asynccontextmanager
    async def queue(self, **settings: Any) -> AsyncIterator[KafkaQueue]:
        publisher = self.publisher = Publisher(self.link)
        await open_up(publisher)
        queue = KafkaQueue(
            self.link, publisher, durability=Durability.PROCESS, **{"tiers": TIERS, **self.settings, **settings}
        )
        try:
            yield queue
        finally:
            await queue.close()
            await publisher.close()

    async def publish_to(self, partition: int, numbers: Sequence[int]) -> None:
        """While a queue is open."""
        records = [to_record(self.topic, message(number), partition=partition) for number in numbers]
        await self.publisher.publish(records, wait_s=WITHIN_S)

    @contextlib.asynccontextmanager
    async def child(self, **settings: Any) -> AsyncIterator[Child]:
        """A consumer in a process of its own, which is killed at the end."""
        told = {"bootstrap": self.link.bootstrap, "prefix": self.link.prefix, **self.settings, **settings}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CHILD),
            msgspec.json.encode(told).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        try:
            yield Child(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


class Child:
    """Does what it is told to with messages named by their numbers, and answers when it is done."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def tell(self, what: str, numbers: Sequence[int] = (), **more: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode({"what": what, "numbers": numbers, **more}) + b"\n")
        async with asyncio.timeout(WITHIN_S):
            line = await self._process.stdout.readline()
        assert line, f"the child died at {what}"
        return msgspec.json.decode(line)

    async def dies(self, point: str, what: str, numbers: Sequence[int]) -> None:
        """Tell it something, during which it kills itself at a crash point."""
        await self.tell("die at", point=point)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"what": what, "numbers": numbers}) + b"\n")
        async with asyncio.timeout(WITHIN_S):
            assert await self._process.wait() == -signal.SIGKILL

    async def receive(self, count: int) -> list[int]:
        """Exactly so many."""
        return [number for number, *_ in await self.tell("receive", count=count)]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()


def number_of(one: ReceivedMessage) -> int:
    """The n of `message(n)`."""
    return int(one.message.job_id.split("-")[4])


def counts(received: Sequence[ReceivedMessage]) -> dict[int, tuple[int, int]]:
    """Attempts and interruptions, by number."""
    return {number_of(one): (one.attempt, one.interruptions) for one in received}


async def publish(queue: KafkaQueue, numbers: Sequence[int], *, data: bytes = b"{}") -> None:
    await queue.publish(CHANNEL, [message(number, data=data) for number in numbers])


async def receive_all(consumer: Consumer, count: int) -> list[ReceivedMessage]:
    """Exactly so many, in as many calls as it takes."""
    received: list[ReceivedMessage] = []
    async with asyncio.timeout(WITHIN_S):
        while len(received) < count:
            received += await consumer.receive(count - len(received), 1.0)
    return received


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await true():  # noqa: ASYNC110 - nobody tells when it is: mostly another process
            await asyncio.sleep(0.05)


class Work:
    """What a worker does, and a note of each attempt: receive, begin, a moment, ack."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.done: Counter[int] = Counter()
        self.attempts: set[tuple[int, int]] = set()

    async def run(self, consumer: Consumer, stop: asyncio.Event) -> None:
        """Until told to stop; then what is in hand is finished, and what has not begun is given back."""
        while not stop.is_set():
            received = await consumer.receive(8, 0.1)
            self.attempts |= set(counts(received).values())
            batch, rest = received[:4], received[4:]
            if batch:
                await self.attempt(consumer, batch)
            await consumer.nack(rest)
        await consumer.close()

    async def attempt(self, consumer: Consumer, batch: Sequence[ReceivedMessage]) -> None:
        try:
            await consumer.begin(batch)
        except (Revoked, Unavailable):  # nothing has run
            with contextlib.suppress(Unavailable):  # given back all the same
                await consumer.nack(batch)
            return
        self.begun.update(map(number_of, batch))
        await asyncio.sleep(0.02)
        self.done.update(map(number_of, batch))
        await consumer.ack(batch)


async def served(work: Work, count: int) -> None:
    async def enough() -> bool:
        return len(work.done) >= count

    await until(enough)
