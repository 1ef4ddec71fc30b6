"""The event log: the events topic, and with it the topics of requests, each partition a source.

A position is the offset of the next record, as decimal text. Events go to the partition of their key's hash, so that
facts of one job keep their order; that is why the events topic never changes its number of partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence

import confluent_kafka
import structlog

from forebay.adapters.kafka.follower import Follower, FollowerPlan
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.offsets import Offsets
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import from_record, to_record
from forebay.core.errors import InvalidRequest
from forebay.core.event import JobEvent, JobRequest
from forebay.core.wire import decode, encode_event
from forebay.ports.event_log import EventLog, LogBatch

log = structlog.get_logger(__name__)

PUBLISH_WAIT_S = 10.0
"""The worker repeats what was not confirmed; until then its runner goes on."""

BATCH_BYTES = 4 * 1024 * 1024
"""A read ends after this many bytes of values: bounds the projector's memory when inputs are large."""


class KafkaEventLog(EventLog):
    """Made for publishing only unless `plan` says how to follow."""

    def __init__(self, link: KafkaLink, publisher: Publisher, plan: FollowerPlan | None = None) -> None:
        self._names = link.names
        self._publisher = publisher
        self._offsets = Offsets(link)
        self._follower = Follower(link, plan, self._offsets) if plan is not None else None

    async def open(self) -> None:
        """Begin to follow, if that was planned. Sources come as soon as the brokers give them to us."""
        if self._follower is not None:
            self._follower.start(asyncio.get_running_loop())

    async def close(self) -> None:
        """Leave the others our sources."""
        if self._follower is not None:
            await asyncio.to_thread(self._follower.stop)

    async def publish(self, events: Sequence[JobEvent]) -> None:
        """Each event by itself: of several some may be written when it raises."""
        records = [to_record(self._names.events_topic, encode_event(event)) for event in events]
        await self._publisher.publish(records, wait_s=PUBLISH_WAIT_S)

    def sources(self) -> tuple[str, ...]:
        return self._following.sources()

    async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
        follower, loop = self._following, asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            follower.news.clear()
            taken = follower.take(after, limit, BATCH_BYTES)
            remaining_s = deadline - loop.time()
            if taken or remaining_s <= 0 or set(after) != set(follower.sources()):
                return [self._batch(source, after[source], records) for source, records in taken.items()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining_s):
                    await follower.news.wait()

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

    def _batch(self, source: str, start: str, records: Sequence[confluent_kafka.Message]) -> LogBatch:
        facts = list(self._facts(records))
        last = records[-1].offset()
        assert last is not None
        malformed = len(records) - len(facts)
        return LogBatch(source=source, start=start, end=str(last + 1), facts=tuple(facts), malformed=malformed)

    def _facts(self, records: Sequence[confluent_kafka.Message]) -> Iterable[JobRequest | JobEvent]:
        for record in records:
            try:
                yield decode(from_record(record, self._names))
            except InvalidRequest as exc:
                log.warning(
                    "event_log.malformed",
                    topic=record.topic(),
                    partition=record.partition(),
                    offset=record.offset(),
                    reason=exc.message,
                )
