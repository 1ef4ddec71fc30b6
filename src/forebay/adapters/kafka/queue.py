"""The queue: a channel is a topic, a consumer a member of the channel's group, a delay a topic that waits."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from forebay.adapters.kafka.attempts import delay_headers, tier_for, without_ours
from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.depth import depth
from forebay.adapters.kafka.entries import Entry
from forebay.adapters.kafka.forwarder import Forwarder
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.member import Member
from forebay.adapters.kafka.names import RETRY_TIERS_S
from forebay.adapters.kafka.offsets import Offsets
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import ANY_PARTITION, logged_at, to_record
from forebay.adapters.kafka.tracker import Mark
from forebay.core.errors import PayloadTooLarge, Revoked, Unavailable
from forebay.core.event import JobError
from forebay.core.message import Channel, JobKey, Message, ReceivedMessage
from forebay.ports.queue import Consumer, Durability, Queue, QueueFeatures

log = structlog.get_logger(__name__)

PUBLISH_WAIT_S = 2.5
"""A caller of the API is to have an answer within 3 s. Whoever publishes for other reasons tries again."""


class KafkaQueue(Queue):
    """`publisher` must be open, and the topics must exist (`forebay topics apply`).

    `durability` is what the topics' settings give. `group_protocol`, `session_timeout_s`, `max_poll_interval_s`,
    `drain_s` and `begin_wait_s`: see ConsumerPlan. `tiers` are the delays that there are, in seconds, by the last part
    of a retry topic's name; a delay is rounded up to one, a longer one than the longest goes round several times.
    `clock` gives seconds since the epoch; `random`, in [0, 1), scatters what comes back from a delay.
    """

    def __init__(
        self,
        link: KafkaLink,
        publisher: Publisher,
        *,
        durability: Durability,
        group_protocol: str = "consumer",
        session_timeout_s: float = 45.0,
        max_poll_interval_s: float = 300.0,
        drain_s: float = 5.0,
        begin_wait_s: float = 10.0,
        tiers: Mapping[str, float] = RETRY_TIERS_S,
        publish_wait_s: float = PUBLISH_WAIT_S,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._link = link
        self._names = link.names
        self._publisher = publisher
        self._durability = durability
        self._plan = ConsumerPlan(
            group_protocol=group_protocol,
            session_timeout_s=session_timeout_s,
            max_poll_interval_s=max_poll_interval_s,
            drain_s=drain_s,
            begin_wait_s=begin_wait_s,
        )
        self._tiers = tiers
        self._publish_wait_s = publish_wait_s
        self._clock = clock
        self._random = random
        self._consumers: set[KafkaConsumer] = set()
        self._offsets: Offsets | None = None

    @property
    def features(self) -> QueueFeatures:
        return QueueFeatures(
            survives_restart=True,
            durability=self._durability,
            shares_by_message=False,
            publishes_all_or_none=False,
            depth_counts_delayed=False,
        )

    async def publish(self, channel: Channel, messages: Sequence[Message]) -> None:
        topic = self._names.requests_topic(channel)
        # One record per job: there is no order to be kept among those of one key.
        records = [to_record(topic, message, partition=ANY_PARTITION) for message in messages]
        await self._publisher.publish(records, wait_s=self._publish_wait_s)

    def consumer(self, channel: Channel) -> Consumer:
        """It joins its group with the first `receive`."""
        group = self._names.worker_group(channel)
        dead_letters = self._dead_letters(group)
        member = Member(self._link, self._plan, group, [self._names.requests_topic(channel)], dead_letters)
        consumer = KafkaConsumer(
            member,
            channel,
            self._publisher,
            dead_letters,
            retry_prefix=self._names.retry_prefix,
            tiers=self._tiers,
            publish_wait_s=self._publish_wait_s,
            clock=self._clock,
            on_close=self._consumers.discard,
        )
        self._consumers.add(consumer)
        return consumer

    async def depth(self, channel: Channel) -> int:
        """What consumers elsewhere have acknowledged in the last second may still be counted."""
        for consumer in [one for one in self._consumers if one.channel == channel]:
            with contextlib.suppress(Unavailable):  # what is not committed counts as waiting
                await consumer.commit()
        if self._offsets is None:
            self._offsets = Offsets(self._link)
        topic, group = self._names.requests_topic(channel), self._names.worker_group(channel)
        return await asyncio.to_thread(depth, self._offsets, topic, group)

    async def close(self) -> None:
        """Close the consumers that are still open."""
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))

    async def forget(self, jobs: Sequence[JobKey], *, wholly: bool = False) -> None:
        """Nothing: topics forget by age."""

    async def forward_delayed(self) -> None:
        await Forwarder(
            self._link,
            self._plan,
            self._publisher,
            self._dead_letters(self._names.scheduler_group),
            tiers=self._tiers,
            publish_wait_s=self._publish_wait_s,
            clock=self._clock,
            random=self._random,
        ).run()

    def _dead_letters(self, group: str) -> DeadLetters:
        return DeadLetters(self._publisher, self._names.dlq_topic, group, publish_wait_s=self._publish_wait_s)


class KafkaConsumer(Consumer):
    """What is acknowledged is committed within a second, and at once with the next `begin`: what a killed process has
    acknowledged in its last second is received again, as an attempt that was cut off."""

    def __init__(
        self,
        member: Member,
        channel: Channel,
        publisher: Publisher,
        dead_letters: DeadLetters,
        *,
        retry_prefix: str,
        tiers: Mapping[str, float],
        publish_wait_s: float,
        clock: Callable[[], float],
        on_close: Callable[[KafkaConsumer], None],
    ) -> None:
        self.channel = channel
        self._member = member
        self._hand = member.hand
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._retry_prefix = retry_prefix
        self._tiers = tiers
        self._publish_wait_s = publish_wait_s
        self._clock = clock
        self._on_close = on_close

    async def receive(self, max_messages: int, wait_s: float) -> list[ReceivedMessage]:
        return [_received(*taken) for taken in await self._member.receive(max_messages, wait_s)]

    def holds(self, received: ReceivedMessage) -> bool:
        return self._hand.holds(received.receipt)

    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        receipts = [one.receipt for one in received if isinstance(one.receipt, int)]
        if not all(map(self._hand.holds, receipts)):
            raise Revoked("messages are to be begun that are no longer in hand")
        if receipts:
            await self._member.commit(receipts)

    async def retract(self, received: Sequence[ReceivedMessage]) -> None:
        self._hand.retract(one.receipt for one in received)

    async def ack(self, received: Sequence[ReceivedMessage]) -> None:
        self._hand.done(one.receipt for one in received)
        await self._acquit(received)

    async def reject(self, received: Sequence[ReceivedMessage], error: JobError) -> None:
        async with self._member.ending():
            for entry, mark in self._hand.keep(one.receipt for one in received):
                await self._dead_letters.write(entry, error, mark.attempt)
                self._hand.done([entry.receipt])
        await self._acquit(received)

    async def _acquit(self, received: Sequence[ReceivedMessage]) -> None:
        """Those that were cut off before are done on record at once: if the next suspect kills the process, which may
        be one of another channel, it must not count against them again."""
        if any(one.interruptions for one in received):
            await self._member.commit()

    async def nack(self, received: Sequence[ReceivedMessage], delay_s: float = 0.0) -> None:
        """Raises Unavailable: with a delay nothing has happened then; without one they are given back, but that their
        attempts have ended is not committed yet."""
        if delay_s > 0:
            async with self._member.ending():
                await self._delay(self._hand.keep(one.receipt for one in received), delay_s)
        elif self._hand.give_back(one.receipt for one in received):
            await self._member.commit()

    def delay_of(self, delay_s: float) -> float:
        _, tier_s = tier_for(delay_s, self._tiers)
        return max(delay_s, tier_s)

    async def commit(self) -> None:
        """Commit what was acknowledged, now. Raises Unavailable."""
        await self._member.commit()

    async def close(self) -> None:
        self._on_close(self)
        await self._member.close()

    async def _delay(self, kept: Sequence[tuple[Entry, Mark]], delay_s: float) -> None:
        """Into a retry topic, as our own record even if it was a foreign one: its id and its time must stay."""
        tier, _ = tier_for(delay_s, self._tiers)
        due_at = self._clock() + self.delay_of(delay_s)
        receipts = [entry.receipt for entry, _ in kept]
        records = [
            to_record(
                self._retry_prefix + tier,
                without_ours(entry.readable),
                more=delay_headers(mark, self.channel, due_at),
            )
            for entry, mark in kept
        ]
        try:
            await self._publisher.publish(records, wait_s=self._publish_wait_s)
        except PayloadTooLarge as exc:  # with our headers
            log.warning("queue.too_large_to_delay", count=len(records), limit_bytes=exc.limit_bytes)
            if self._hand.give_back(receipts):
                await self._member.commit()
            return
        self._hand.done(receipts)


def _received(entry: Entry, mark: Mark) -> ReceivedMessage:
    return ReceivedMessage(
        message=without_ours(entry.readable),
        receipt=entry.receipt,
        attempt=mark.attempt,
        interruptions=mark.interruptions,
        logged_at=logged_at(entry.record),
    )
