"""Follows the partitions of the log that fall to this process: one thread, which alone touches two consumers.

The *member* is in the projectors' group and never fetches anything: it only learns which partitions are ours. The
*fetcher* is in no group and reads those partitions from the offsets that the caller names. One consumer for both would
have to stand still in between, and a paused partition takes half a second to a second to wake up (docs of the queue's
reader); this way a partition that changes hands is read at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.offsets import Offsets, partition_of, source_of
from forebay.core.errors import Unavailable
from forebay.ports.event_log import START

log = structlog.get_logger(__name__)

POLL_S = 0.05
FETCH_MOST = 500
LIST_EVERY_S = 5.0
"""How long a topic that was created since may go unnoticed."""

BUFFER_BYTES = 16 * 1024 * 1024
"""Fetched and not yet taken. A full buffer stops the fetching until it is half empty."""


class FollowerPlan(Struct, frozen=True, kw_only=True):
    """`group_protocol`: "consumer" (KIP-848, brokers from 4.0) or "classic". With `whole` there is no group: everything
    is followed, whoever else does, for a rebuild."""

    group_protocol: str = "consumer"
    session_timeout_s: float = 45.0
    whole: bool = False


class _Buffer:
    """What was fetched of one source from the position `start` on."""

    __slots__ = ("records", "size_bytes", "start")

    def __init__(self, start: str) -> None:
        self.start = start
        self.records: deque[Message] = deque()
        self.size_bytes = 0


class Follower:
    """`sources`, `take` and `news` are for the event loop, the rest is the thread's."""

    def __init__(self, link: KafkaLink, plan: FollowerPlan, offsets: Offsets) -> None:
        self._link = link
        self._plan = plan
        self._offsets = offsets
        self.news = asyncio.Event()
        """Set when something was fetched or the sources have changed."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="kafka-follower", daemon=True)
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._mine: frozenset[str] = frozenset()
        self._buffers: dict[str, _Buffer] = {}
        self._wanted: dict[str, str] = {}  # where the loop wants to read, of sources whose buffer stands elsewhere
        self._buffered_bytes = 0
        self._listed: frozenset[str] = frozenset()
        self._list_at = 0.0
        self._fetching: set[str] = set()

    # ----------------------------------------------------------------------------------------------- on the event loop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Returns when the consumers are closed."""
        self._stopping.set()
        self._thread.join()

    def sources(self) -> tuple[str, ...]:
        return tuple(sorted(self._mine))

    def take(self, after: Mapping[str, str], limit: int, limit_bytes: int) -> dict[str, list[Message]]:
        """What was fetched after these positions, at most `limit` records; the fetching goes where they are."""
        taken: dict[str, list[Message]] = {}
        with self._lock:
            for source, position in after.items():
                buffer = self._buffers.get(source)
                if source not in self._mine:
                    continue
                if buffer is None or buffer.start != position:
                    self._wanted[source] = position
                    continue
                while buffer.records and limit > 0 and limit_bytes > 0:
                    record = buffer.records.popleft()
                    size = len(record)
                    buffer.size_bytes -= size
                    self._buffered_bytes -= size
                    limit_bytes -= size
                    limit -= 1
                    taken.setdefault(source, []).append(record)
                if source in taken:
                    buffer.start = str(_after(taken[source][-1]))
        return taken

    # -------------------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        own = {
            "group.id": self._link.names.projector_group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "check.crcs": True,
        }
        fetching = {
            # A position that is no longer there is told to us, and never answered with another one in silence.
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 16384,
            "fetch.queue.backoff.ms": 20,
            "fetch.wait.max.ms": 100,
        }
        fetcher = Consumer(self._link.config(**own, **fetching))
        member = None if self._plan.whole else Consumer(self._link.config(**own, **self._membership()))
        try:
            while not self._stopping.is_set():
                try:
                    self._turn(fetcher, member)
                except (KafkaException, Unavailable) as exc:
                    log.warning("event_log.away", reason=str(exc.args[0]))
                    self._stopping.wait(0.5)
        finally:
            for consumer in (member, fetcher):
                if consumer is not None:
                    consumer.close()

    def _membership(self) -> dict[str, str | int]:
        protocol: dict[str, str | int] = {"group.protocol": self._plan.group_protocol, "auto.offset.reset": "earliest"}
        if self._plan.group_protocol == "classic":
            protocol["partition.assignment.strategy"] = "cooperative-sticky"
            protocol["session.timeout.ms"] = int(self._plan.session_timeout_s * 1000)
        return protocol

    def _turn(self, fetcher: Consumer, member: Consumer | None) -> None:
        if time.monotonic() >= self._list_at:
            self._list(member)
        if member is not None:
            told = member.poll(0)
            if told is not None and (error := told.error()) is not None:
                log.info("event_log.group", code=error.name(), reason=error.str())
        self._go_where_wanted(fetcher)
        if self._buffered_bytes > BUFFER_BYTES:
            self._stopping.wait(POLL_S)
            return
        first = fetcher.poll(POLL_S)
        if first is not None:
            self._keep(fetcher, [first, *fetcher.consume(FETCH_MOST, 0)])

    def _list(self, member: Consumer | None) -> None:
        """Look for topics: to be followed if we follow everything, else to be shared by the group."""
        self._list_at = time.monotonic() + LIST_EVERY_S
        if member is None:
            self._own(frozenset(self._offsets.sources()))
            return
        topics = frozenset(self._offsets.topics())
        if topics != self._listed:
            self._listed = topics
            member.subscribe(
                sorted(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )

    def _on_assign(self, member: Consumer, partitions: Sequence[TopicPartition]) -> None:
        member.incremental_assign(list(partitions))
        member.pause(list(partitions))  # it is a member only: the other consumer fetches
        self._own(self._mine | {source_of(one.topic, one.partition) for one in partitions})

    def _on_revoke(self, member: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._own(self._mine - {source_of(one.topic, one.partition) for one in partitions})

    def _own(self, mine: frozenset[str]) -> None:
        with self._lock:
            if mine == self._mine:
                return
            self._mine = mine
            for source in self._buffers.keys() - mine:
                self._buffered_bytes -= self._buffers.pop(source).size_bytes
            self._wanted = {source: position for source, position in self._wanted.items() if source in mine}
        self._tell()

    def _go_where_wanted(self, fetcher: Consumer) -> None:
        with self._lock:
            gone = self._fetching - self._mine
            wanted, self._wanted = self._wanted, {}
            for source, position in wanted.items():
                old = self._buffers.get(source)
                self._buffered_bytes -= old.size_bytes if old is not None else 0
                self._buffers[source] = _Buffer(position)
        leave = gone | (wanted.keys() & self._fetching)
        if leave:
            fetcher.incremental_unassign([TopicPartition(*partition_of(source)) for source in leave])
            self._fetching -= leave
        if wanted:
            fetcher.incremental_assign([_from(source, position) for source, position in wanted.items()])
            self._fetching |= wanted.keys()

    def _keep(self, fetcher: Consumer, records: Sequence[Message]) -> None:
        with self._lock:
            for record in records:
                if record.error() is not None:
                    continue
                buffer = self._buffers.get(source_of(record.topic() or "", record.partition() or 0))
                if buffer is not None:
                    size = len(record)
                    buffer.records.append(record)
                    buffer.size_bytes += size
                    self._buffered_bytes += size
        for record in records:
            if (error := record.error()) is not None:
                self._met(fetcher, record, error)
        self._tell()

    def _met(self, fetcher: Consumer, record: Message, error: KafkaError) -> None:
        """An error of one partition, or of the link."""
        topic, partition = record.topic(), record.partition()
        if error.code() != KafkaError._AUTO_OFFSET_RESET or topic is None or partition is None:
            log.info("event_log.fetch", topic=topic, partition=partition, code=error.name(), reason=error.str())
            return
        log.error("event_log.gap", topic=topic, partition=partition, reason=error.str())
        here = TopicPartition(topic, partition)
        fetcher.incremental_unassign([here])
        fetcher.incremental_assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])

    def _tell(self) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self.news.set)


def _from(source: str, position: str) -> TopicPartition:
    topic, partition = partition_of(source)
    return TopicPartition(topic, partition, OFFSET_BEGINNING if position == START else int(position))


def _after(record: Message) -> int:
    offset = record.offset()
    assert offset is not None
    return offset + 1
