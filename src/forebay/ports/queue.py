"""The queue of requests: append, receive, acknowledge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from forebay.core.event import JobError
from forebay.core.message import Channel, JobKey, Message, ReceivedMessage


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
    `shares_by_message`: any consumer of a channel may get any of its messages. Else each has the messages of some parts
    of the channel, which move between consumers when one comes or goes: what was in hand then may be received again
    elsewhere (`Consumer.holds`), and what one consumer gives back comes to itself first.
    `publishes_all_or_none`: of several messages in one `publish`. Else each by itself.
    `depth_counts_delayed`: `depth` includes what waits for its delay to pass.
    """

    survives_restart: bool
    durability: Durability
    shares_by_message: bool = True
    publishes_all_or_none: bool = True
    depth_counts_delayed: bool = True


class Queue(ABC):
    """At least once, no order promised between messages; roughly first in, first out within a channel."""

    @property
    @abstractmethod
    def features(self) -> QueueFeatures: ...

    @abstractmethod
    async def publish(self, channel: Channel, messages: Sequence[Message]) -> None:
        """Append; durable, in the sense of `features.durability`, when this returns.

        Raises Unavailable when nothing was written, OutcomeUnknown when nobody can say, PayloadTooLarge for a message
        that the queue will never take.
        """

    @abstractmethod
    def consumer(self, channel: Channel) -> Consumer:
        """A consumer of this channel. Several share its messages: each message is in one consumer's hands at a time."""

    @abstractmethod
    async def depth(self, channel: Channel) -> int:
        """How many messages of this channel are not acknowledged, those in hand included (for those that are delayed
        see `features`). Raises Unavailable."""

    @abstractmethod
    async def forget(self, jobs: Sequence[JobKey], *, wholly: bool = False) -> None:
        """These jobs are deleted: drop their messages, and what the log has of them but the word that they are deleted;
        `wholly` that too. A log that ends by age keeps all of it so long. Harmless when repeated. Raises Unavailable.
        """

    @abstractmethod
    async def forward_delayed(self) -> None:
        """Bring messages that were given back with a delay to their channel when they are due, until cancelled, which
        loses nothing.

        The scheduler's part, in one process or several. A queue that needs nobody for it only waits.
        """


class Consumer(ABC):
    """One reader of one channel. What it has received and not acknowledged comes back when it closes or dies."""

    @abstractmethod
    async def receive(self, max_messages: int, wait_s: float) -> list[ReceivedMessage]:
        """Up to `max_messages` as soon as there is one; [] after `wait_s` without any. Cancellation loses nothing."""

    @abstractmethod
    def holds(self, received: ReceivedMessage) -> bool:
        """Whether it is in this consumer's hands: no longer once it was acknowledged, given back, or taken away because
        its part of the channel went to another consumer.

        What was taken away before it was begun is another's to run. What was begun goes on and its outcome is
        published; `ack` and `nack` of it then do nothing.
        """

    @abstractmethod
    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        """Record that an attempt of each is about to run: their next `attempt` is one higher, whoever dies, and
        unless an ack, a nack or another `begin` of this consumer follows, their `interruptions` too.

        Survives the death of any process when this returns; need not survive a power cut (the same attempt number then
        runs again). Raises Revoked, with nothing recorded, if one of them is no longer in hand; Unavailable.
        """

    @abstractmethod
    async def retract(self, received: Sequence[ReceivedMessage]) -> None:
        """Take back the last `begin` of each of these: nothing has run of it, nothing runs, and nobody was told that it
        began. So it counts neither as an attempt nor, should somebody die, as an interruption. What is not in hand, or
        not begun, is left out. A death in the next second may undo this. Raises Unavailable, with nothing taken back.
        """

    @abstractmethod
    async def ack(self, received: Sequence[ReceivedMessage]) -> None:
        """These are done and never come back. Call it last, after the outcome is durable. Repeating it is harmless."""

    @abstractmethod
    async def reject(self, received: Sequence[ReceivedMessage], error: JobError) -> None:
        """As `ack`, for what ended as a dead letter: where the queue has a place for those, a copy with the reason is
        there when this returns. Call it last, after the outcome is durable."""

    @abstractmethod
    async def nack(self, received: Sequence[ReceivedMessage], delay_s: float = 0.0) -> None:
        """Give these back, to be received again not before `delay_of(delay_s)` from now. Attempts that were begun stay
        counted, and what was begun here is no interruption: this is a word on how it ended."""

    @abstractmethod
    def delay_of(self, delay_s: float) -> float:
        """What a `nack` makes of this delay, in seconds: not less, and more where a queue knows only some delays."""

    @abstractmethod
    async def close(self) -> None:
        """Give back at once whatever is in hand, begun attempts as interruptions. Nothing can be called after."""
