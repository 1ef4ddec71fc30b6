"""The queue of requests: append, receive, acknowledge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from forebay.core.message import Channel, Message, ReceivedMessage


class Durability(StrEnum):
    """What an accepted message survives; shown in `/health` and in every job object."""

    REPLICATED = "replicated"  # any process, any one broker host including its power
    FLUSHED = "flushed"  # process death and a power cut of the one host
    PROCESS = "process"  # process death, not a power cut
    MEMORY = "memory"  # nothing: tests only


class QueueFeatures(Struct, frozen=True, kw_only=True):
    """Where adapters may differ; the contract suite reads this instead of skipping.

    `survives_restart`: what was published is there when the same place is opened again.
    `durability`: see Durability.
    """

    survives_restart: bool
    durability: Durability


class Queue(ABC):
    """At least once, no order promised between messages; roughly first in, first out within a channel."""

    @property
    @abstractmethod
    def features(self) -> QueueFeatures: ...

    @abstractmethod
    async def publish(self, channel: Channel, messages: Sequence[Message]) -> None:
        """Append; durable, in the sense of `features.durability`, when this returns.

        Raises Unavailable when nothing was written, OutcomeUnknown when nobody can say. All or none.
        """

    @abstractmethod
    def consumer(self, channel: Channel) -> Consumer:
        """A consumer of this channel. Several share its messages: each message is in one consumer's hands at a time."""

    @abstractmethod
    async def depth(self, channel: Channel) -> int:
        """How many messages of this channel are not acknowledged, those in hand and those delayed included."""


class Consumer(ABC):
    """One reader of one channel. What it has received and not acknowledged comes back when it closes or dies."""

    @abstractmethod
    async def receive(self, max_messages: int, wait_s: float) -> list[ReceivedMessage]:
        """Up to `max_messages` as soon as there is one; [] after `wait_s` without any. Cancellation loses nothing."""

    @abstractmethod
    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        """Record that an attempt of each is about to run: their next `attempt` is one higher, whoever dies, and
        unless an ack, a nack or another `begin` of this consumer follows, their `interruptions` too.

        Survives the death of any process when this returns; need not survive a power cut (the same attempt number then
        runs again).
        """

    @abstractmethod
    async def ack(self, received: Sequence[ReceivedMessage]) -> None:
        """These are done and never come back. Call it last, after the outcome is durable. Repeating it is harmless."""

    @abstractmethod
    async def nack(self, received: Sequence[ReceivedMessage], delay_s: float = 0.0) -> None:
        """Give these back, to be received again not before `delay_s` from now. Attempts that were begun stay counted,
        and what was begun here is no interruption: this is a word on how it ended."""

    @abstractmethod
    async def close(self) -> None:
        """Give back at once whatever is in hand, begun attempts as interruptions. Nothing can be called after."""
