"""The event log: the events topic, and with it the topics of requests, each partition a source.

A position is the offset of the next record, as decimal text. Events go to the partition of their key's hash, so that
facts of one job keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence

import confluent_kafka

from forebay.adapters.kafka.follower import Follower, FollowerPlan
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.lookup import Lookup
from forebay.adapters.kafka.names import EVENTS_PARTITIONS
from forebay.adapters.kafka.offsets import Offsets, partition_of
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record, key_of, to_record
from forebay.adapters.kafka.shelves import Shelves
from forebay.adapters.kafka.waiting import blocking
from forebay.core.errors import Unavailable
from forebay.core.fact import Event
from forebay.core.message import Message
from forebay.core.wire import encode_event
from forebay.ports.event_log import EventLog, LogBatch

PUBLISH_WAIT_S = 10.0
"""The worker repeats what was not confirmed; until then its runner goes on."""

TICK_EVERY_S = 10.0
"""So long the monotonic clock is believed to run as the brokers' do."""

TICK_WAIT_S = 2.0
TICK = b"tick"

SETTLE_S = 0.5
"""How long a read that waits for nothing waits to know the end of each of its sources."""


class KafkaEventLog(EventLog):
    """Made for publishing only unless `plan` says how to follow.

    `publish_wait_s`: how long `publish` waits for brokers; whoever answers a caller has 3 s.
    """

    def __init__(
        self,
        link: KafkaLink,
        publisher: Publisher,
        plan: FollowerPlan | None = None,
        *,
        publish_wait_s: float = PUBLISH_WAIT_S,
    ) -> None:
        self._names = link.names
        self._publisher = publisher
        self._publish_wait_s = publish_wait_s
        self._offsets = Offsets(link)
        self._lookup = Lookup(link)
        self._shelves = Shelves()
        self._follower = Follower(link, plan, self._shelves, self._offsets) if plan is not None else None
        self._told: tuple[str, ...] = ()
        self._waiting: set[asyncio.Event] = set()

    async def open(self) -> None:
        """Begin to follow, if that was planned. Sources come as soon as the brokers give them to us."""
        if self._follower is not None:
            loop = asyncio.get_running_loop()

            def notify() -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(self._wake)

            self._follower.start(notify)

    async def close(self) -> None:
        """Leave the others our sources."""
        if self._follower is not None:
            await blocking(self._follower.stop, "kafka-follower-end")

    async def publish(self, events: Sequence[Event]) -> None:
        """Each event by itself: of several some may be written when it raises."""
        topic = self._names.events_topic
        records = [
            to_record(topic, message, partition=events_partition(message.tenant, message.job_id))
            for message in map(encode_event, events)
        ]
        await self._publisher.publish(records, wait_s=self._publish_wait_s)

    async def now(self) -> float:
        """As the brokers last told it, and the time that has passed since. Asked of them with a record, a tick, where
        nothing was published for a while: of the control topic, which keeps only the newest."""
        told = self._publisher.told
        if told is None or time.monotonic() - told[1] > TICK_EVERY_S:
            tick = Record(self._names.control_topic, TICK, b"{}")
            await self._publisher.publish([tick], wait_s=TICK_WAIT_S)
            told = self._publisher.told
        assert told is not None, "a confirmed record has a time"
        return told[0] + time.monotonic() - told[1]

    def sources(self) -> tuple[str, ...]:
        self._told = self._following.sources
        return self._told

    async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
        """Requests come before events where both are there. Unavailable is raised at once while no broker answers."""
        follower, now = self._following, asyncio.get_running_loop().time
        told, woken, began = self._told, asyncio.Event(), now()
        self._waiting.add(woken)
        try:
            while True:
                woken.clear()
                sources = follower.sources
                mine = {source: position for source, position in after.items() if source in sources}
                batches, settled = self._shelves.look(mine, limit)
                left_s = began + (wait_s if settled else max(wait_s, SETTLE_S)) - now()
                if batches or sources != told or len(mine) != len(after):
                    return sorted(batches, key=self._is_of_events)
                if follower.away:
                    raise Unavailable("no Kafka broker can be reached")
                if left_s <= 0:
                    return []
                with contextlib.suppress(TimeoutError):  # looked at once more, and then [] is the answer
                    async with asyncio.timeout(left_s):
                        await woken.wait()
        finally:
            self._waiting.discard(woken)

    async def at(self, places: Sequence[str]) -> list[Message | None]:
        return await asyncio.to_thread(self._lookup.at, places) if places else []

    async def ends(self) -> Mapping[str, str]:
        ends = await asyncio.to_thread(self._offsets.ends)
        return {source: str(offset) for source, offset in ends.items()}

    async def behind(self, after: Mapping[str, str]) -> Mapping[str, int]:
        starts, ends = await asyncio.to_thread(self._offsets.bounds)
        return {
            source: max(0, end - max(starts.get(source, 0), int(after.get(source) or 0)))
            for source, end in ends.items()
        }

    @property
    def _following(self) -> Follower:
        assert self._follower is not None, "this log was made for publishing only"
        return self._follower

    def _wake(self) -> None:
        for woken in self._waiting:
            woken.set()

    def _is_of_events(self, batch: LogBatch) -> bool:
        return partition_of(batch.source)[0] == self._names.events_topic


def events_partition(tenant: str, job_id: str) -> int:
    """As the default partitioner of Kafka's own clients would choose among EVENTS_PARTITIONS."""
    return confluent_kafka.murmur2(key_of(tenant, job_id), EVENTS_PARTITIONS)
