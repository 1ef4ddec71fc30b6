"""Records that are published at the same time leave together: clients and brokers pay by the batch, hardly by the
record."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping

from confluent_kafka import KafkaException, Producer

LIST_EVERY_S = 30.0
LIST_S = 0.5


class Nagle:
    """Nagle's rule (RFC 896) as a context for publishes: entered at once while none is in it; else with all that came
    meanwhile, as soon as one leaves or `enough` wait, after `most_s` at the latest.

    So a lone publish never waits, and under load a batch holds what comes in during a round trip to the broker, with no
    timer to be tuned. `enough` is the full segment of Nagle's rule: with it the broker writes one batch while the next
    one gathers, in place of all waiting for each other. For one event loop.
    """

    def __init__(self, most_s: float, enough: int) -> None:
        self._most_s = most_s
        self._enough = enough
        self._in_flight = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.departure = 0
        """The number of the last one: what enters together has one number."""

    async def __aenter__(self) -> None:
        if self._in_flight == 0:
            self.departure += 1
        else:
            loop = asyncio.get_running_loop()
            if self._timer is None:
                self._timer = loop.call_later(self._most_s, self._let_in)
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiting.append(waiter)
            if len(self._waiting) >= self._enough:
                self._let_in()
            await waiter
        self._in_flight += 1

    async def __aexit__(self, *_: object) -> None:
        self._in_flight -= 1
        self._let_in()

    def _let_in(self) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self.departure += 1
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():  # cancelled
                waiter.set_result(None)


class Turns:
    """The partitions of topics in turns, one for each departure, as the sticky partitioner of Kafka's own client does
    by the batch (KIP-480): so a departure is one batch of one partition."""

    def __init__(self) -> None:
        self._counts: MutableMapping[str, int] = {}
        self._list_at: MutableMapping[str, float] = {}

    def partition(self, topic: str, departure: int) -> int:
        """-1, by the key's hash, until the number of the topic's partitions is known."""
        count = self._counts.setdefault(topic, 0)
        return departure % count if count else -1

    def learn(self, producer: Producer, now: float) -> None:
        """Ask for the number of partitions of what topics were asked for, now and again. Blocks for LIST_S at most for
        each; for a thread that nobody waits for."""
        for topic in [topic for topic in self._counts if now >= self._list_at.get(topic, 0.0)]:
            self._list_at[topic] = now + LIST_EVERY_S
            try:
                found = producer.list_topics(topic, timeout=LIST_S).topics[topic]
            except KafkaException:
                continue  # whoever publishes finds out
            if found.error is None:
                self._counts[topic] = len(found.partitions)
