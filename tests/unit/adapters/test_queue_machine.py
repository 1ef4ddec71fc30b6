"""Any sequence of calls on a queue, against a dictionary."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from msgspec import Struct

from forebay.adapters.memory import MemoryLog, MemoryQueue
from forebay.adapters.sqlite import Database, SqliteQueue
from forebay.core.message import Channel, ReceivedMessage
from forebay.ports.queue import Consumer, Durability, Queue
from forebay.testing.clock import HandClock
from forebay.testing.samples import message

T = TypeVar("T")

CHANNELS = [Channel("a", "normal"), Channel("a", "high")]


class Known(Struct):
    """A message that was published and not acknowledged."""

    channel: Channel
    attempt: int = 0
    running: bool = False
    cut_off: int = 0
    due_at: float = 0.0
    holder: Consumer | None = None


class Grip(Struct, frozen=True):
    """A message as one consumer received it."""

    consumer: Consumer
    received: ReceivedMessage


class QueueMachine(RuleBasedStateMachine):
    """The order of messages is left open; all else is determined."""

    consumers = Bundle("consumers")
    grips = Bundle("grips")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = HandClock()
        self.published = 0
        self.known: dict[str, Known] = {}
        self.channel_of: dict[Consumer, Channel] = {}
        self.open()

    def open(self) -> None:
        self.queue: Queue = MemoryQueue(MemoryLog(), self.clock)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @rule(target=consumers, channel=st.sampled_from(CHANNELS))
    def a_consumer_opens(self, channel: Channel) -> Consumer:
        consumer = self.queue.consumer(channel)
        self.channel_of[consumer] = channel
        return consumer

    @rule(channel=st.sampled_from(CHANNELS), count=st.integers(0, 70))
    def publish(self, channel: Channel, count: int) -> None:
        messages = [message(self.published + n) for n in range(count)]
        self.published += count
        self.run(self.queue.publish(channel, messages))
        self.known.update((one.job_id, Known(channel)) for one in messages)

    @rule(target=grips, consumer=consumers, most=st.integers(1, 40))
    def receive(self, consumer: Consumer, most: int) -> Any:
        if consumer not in self.channel_of:
            return multiple()
        channel = self.channel_of[consumer]
        waiting = {
            name
            for name, known in self.known.items()
            if known.channel == channel and known.holder is None and known.due_at <= self.clock.now
        }
        received = self.run(consumer.receive(most, 0.0))
        names = [one.message.job_id for one in received]
        assert len(set(names)) == len(names) == min(most, len(waiting))
        assert set(names) <= waiting
        for one in received:
            known = self.known[one.message.job_id]
            known.cut_off += known.running
            known.running = False
            assert (one.attempt, one.interruptions) == (known.attempt, known.cut_off)
            known.holder = consumer
        return multiple(*(Grip(consumer, one) for one in received))

    def holds(self, grip: Grip) -> bool:
        known = self.known.get(grip.received.message.job_id)
        return known is not None and known.holder is grip.consumer

    @rule(grip=grips)
    def begin(self, grip: Grip) -> None:
        if self.holds(grip):
            self.run(grip.consumer.begin([grip.received]))
            known = self.known[grip.received.message.job_id]
            known.attempt += 1
            known.running = True

    @rule(grip=grips)
    def retract(self, grip: Grip) -> None:
        known = self.known.get(grip.received.message.job_id)
        if known is not None and self.holds(grip) and known.running:
            self.run(grip.consumer.retract([grip.received]))
            known.attempt -= 1
            known.running = False

    @rule(grip=consumes(grips), again=st.booleans())
    def ack(self, grip: Grip, again: bool) -> None:
        if self.holds(grip):
            for _ in range(1 + again):
                self.run(grip.consumer.ack([grip.received]))
            del self.known[grip.received.message.job_id]

    @rule(grip=consumes(grips), delay_s=st.sampled_from([0.0, 1.0, 10.0, 10.0]))
    def nack(self, grip: Grip, delay_s: float) -> None:
        if self.holds(grip):
            self.run(grip.consumer.nack([grip.received], delay_s))
            known = self.known[grip.received.message.job_id]
            known.holder = None
            known.due_at = self.clock.now + delay_s if delay_s else 0.0
            known.running = False

    @rule(consumer=consumes(consumers))
    def a_consumer_closes(self, consumer: Consumer) -> None:
        if self.channel_of.pop(consumer, None) is not None:
            self.run(consumer.close())
            self.given_back(consumer)

    def given_back(self, *consumers: Consumer) -> None:
        for known in self.known.values():
            if known.holder in consumers:
                known.holder = None

    @rule(seconds=st.sampled_from([0.5, 1.0, 9.0, -5.0]))
    def time_passes(self, seconds: float) -> None:
        """Or jumps back: a wall clock may."""
        self.clock.advance(seconds)

    @invariant()
    def depth_is_what_is_not_acknowledged(self) -> None:
        for channel in CHANNELS:
            expected = sum(known.channel == channel for known in self.known.values())
            assert self.run(self.queue.depth(channel)) == expected

    def teardown(self) -> None:
        self.runner.close()


class SqliteMachine(QueueMachine):
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="forebay-machine-"))
        super().__init__()

    def open(self) -> None:
        self.database = Database(self.folder, durability=Durability.PROCESS).open()
        self.queue = SqliteQueue(self.database, self.clock)

    @rule()
    def restart(self) -> None:
        self.run(self.database.close())
        self.given_back(*self.channel_of)
        self.channel_of.clear()
        self.open()

    def teardown(self) -> None:
        self.run(self.database.close())
        super().teardown()
        shutil.rmtree(self.folder)


TestMemoryQueueMachine = QueueMachine.TestCase
TestSqliteQueueMachine = SqliteMachine.TestCase
TestMemoryQueueMachine.settings = TestSqliteQueueMachine.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
