"""Follows the partitions of the log that fall to this process: one thread, which alone touches two consumers.

The *member* (membership.py) is in the projectors' group and never fetches anything: it only learns which partitions are
ours. The *fetcher* is in no group and reads those partitions from the positions that the caller names. One consumer for
both would have to stand still in between, and a paused partition takes half a second to a second to wake up; this way a
partition that changes hands is read at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from msgspec import Struct

from forebay.adapters.kafka.attempts import ATTEMPT
from forebay.adapters.kafka.lifeline import Lifeline
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.lookup import place_of
from forebay.adapters.kafka.membership import Membership
from forebay.adapters.kafka.offsets import Offsets, partition_of, source_of
from forebay.adapters.kafka.records import from_record, headers_of, logged_at
from forebay.adapters.kafka.shelves import Entry, Shelves
from forebay.core.errors import InvalidRequest, Unavailable
from forebay.core.fact import Fact
from forebay.core.wire import decode_any_event, decode_request
from forebay.ports.event_log import START

log = structlog.get_logger(__name__)

POLL_S = 0.05
"""How long a change of what is to be read may take to be noticed."""

CHUNK = 500
LIST_EVERY_S = 5.0
"""How soon topics of new models and new partitions are found."""

RETRY_S = 0.5

FETCHING: Mapping[str, Any] = {
    "auto.offset.reset": "error",  # never a silent jump: see Follower._lost
    "check.crcs": True,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "fetch.max.bytes": 16 * 1024 * 1024,
    # From 1 s: how long a partition rests once enough of it is queued here, though we may have emptied it long before.
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "isolation.level": "read_committed",
    "queued.max.messages.kbytes": 8192,
    "queued.min.messages": 1000,
}


class FollowerPlan(Struct, frozen=True, kw_only=True):
    """`group_protocol`: "consumer" (KIP-848, brokers from 4.0) or "classic". `session_timeout_s`, with "classic" only:
    after so long without a word a projector counts as dead; with the other the brokers decide (45 s unless they are set
    up otherwise). With `whole` there is no group: everything is followed, whoever else does, for a rebuild."""

    group_protocol: str = "consumer"
    session_timeout_s: float = 45.0
    whole: bool = False


class Follower:
    """Puts what it reads on `shelves`."""

    def __init__(self, link: KafkaLink, plan: FollowerPlan, shelves: Shelves, offsets: Offsets) -> None:
        self._link = link
        self._names = link.names
        self._plan = plan
        self._shelves = shelves
        self._offsets = offsets
        self._notify: Callable[[], None] = lambda: None
        self._sources: tuple[str, ...] = ()
        self._away = False
        self._lifeline = Lifeline()  # the fetcher's
        self._fetching: set[str] = set()
        self._list_at = 0.0
        self._troubles: set[tuple[str, int]] = set()  # logged once each, until the source gives records again
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-follower", daemon=True)

    @property
    def sources(self) -> tuple[str, ...]:
        """What is ours to read now."""
        return self._sources

    @property
    def away(self) -> bool:
        """Whether no broker could be reached when last asked."""
        return self._away

    def start(self, notify: Callable[[], None]) -> None:
        """`notify` is called from the thread whenever there is something to look at."""
        self._notify = notify
        self._thread.start()

    def stop(self) -> None:
        """Returns when the group is left."""
        self._stopping.set()
        with self._shelves.changed:
            self._shelves.changed.notify()
        self._thread.join()

    # ------------------------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._live()
            except Exception:  # the edge of the thread, as in _try_turn
                log.exception("event_log.follower_failed")
                self._start_over()

    def _live(self) -> None:
        """Until told to stop, or as long as both consumers live."""
        with contextlib.ExitStack() as closing:
            fetcher, member = self._open(closing)
            while not (self._stopping.is_set() or self._cut(member)):
                self._try_turn(fetcher, member)

    def _open(self, closing: contextlib.ExitStack) -> tuple[Consumer, Membership | None]:
        """Both consumers, which read nothing yet."""
        group = {"group.id": self._names.projector_group}  # asked for even where nothing is committed
        more = {"error_cb": self._on_error, **self._lifeline.settings}
        fetcher = Consumer(self._link.config(**{**FETCHING, **group, **more}))
        closing.callback(fetcher.close)
        self._lifeline.renew()
        self._fetching.clear()
        if self._plan.whole:
            return fetcher, None
        member = Membership(self._link, self._plan.group_protocol, self._plan.session_timeout_s)
        closing.callback(member.close)
        return fetcher, member

    def _cut(self, member: Membership | None) -> bool:
        """Whether one of the two is dead; then what was ours is to be read again, by whoever gets it."""
        if not self._lifeline.cut and (member is None or not member.cut):
            return False
        reason = "it knows no broker any more" if self._lifeline.cut else "its membership is over"
        log.error("event_log.follower_failed", reason=reason)
        self._start_over()
        return True

    def _start_over(self) -> None:
        """What was ours is to be read again, a moment later."""
        self._shelves.forget(self._sources)
        self._list_at = 0.0
        self._notify()
        self._stopping.wait(RETRY_S)

    def _try_turn(self, fetcher: Consumer, member: Membership | None) -> None:
        try:
            self._turn(fetcher, member)
        except Exception:  # the edge of the thread: without it nothing would be read any more
            log.exception("event_log.follower_failed")
            self._shelves.forget(self._sources)  # something may be missing: to be read again
            self._notify()
            self._stopping.wait(RETRY_S)

    def _turn(self, fetcher: Consumer, member: Membership | None) -> None:
        if self._away or time.monotonic() >= self._list_at:
            self._follow(fetcher, self._list(member))
        if member is not None:
            member.poll()
            self._follow(fetcher, member.assigned)
        self._move(fetcher)
        if not self._fetching or self._shelves.full:
            with self._shelves.changed:
                self._shelves.changed.wait(POLL_S)
            return
        self._receive(fetcher)

    def _list(self, member: Membership | None) -> Sequence[str]:
        """Ask for the topics. Whether there was an answer says whether brokers can be reached."""
        try:
            found = self._offsets.sources()
        except Unavailable as exc:
            if not self._away:
                log.warning("event_log.away", reason=exc.message)
            self._away = True
            self._notify()
            self._stopping.wait(POLL_S)
            return self._sources
        if self._away:
            log.info("event_log.back")
        self._away = False
        self._list_at = time.monotonic() + LIST_EVERY_S
        if member is None:
            return found
        member.subscribe(dict.fromkeys(partition_of(source)[0] for source in found))
        return member.assigned

    def _follow(self, fetcher: Consumer, found: Sequence[str]) -> None:
        """From now on these are ours. They are read once somebody says from where."""
        if (sources := tuple(found)) == self._sources:
            return
        self._shelves.keep_only(sources)
        self._unassign(fetcher, self._fetching - set(sources))
        self._sources = sources
        self._notify()

    def _move(self, fetcher: Consumer) -> None:
        moves = self._shelves.moves(self._sources)
        self._assign(fetcher, {source: _offset(position) for source, position in moves.items()})

    def _assign(self, fetcher: Consumer, offsets: Mapping[str, int]) -> None:
        if not offsets:
            return
        self._unassign(fetcher, self._fetching & offsets.keys())
        fetcher.incremental_assign([TopicPartition(*partition_of(source), at) for source, at in offsets.items()])
        self._fetching |= offsets.keys()

    def _unassign(self, fetcher: Consumer, sources: Iterable[str]) -> None:
        if places := [TopicPartition(*partition_of(source)) for source in sources]:
            fetcher.incremental_unassign(places)
            self._fetching -= set(sources)

    def _receive(self, fetcher: Consumer) -> None:
        first = fetcher.poll(POLL_S)  # `consume` would wait for as many as it is asked for
        if first is None:
            return
        for message in (first, *fetcher.consume(CHUNK, 0)):
            source = source_of(message.topic() or "", message.partition() or 0)
            if (error := message.error()) is None:
                self._shelves.put(source, self._entry(source, message))
                self._troubles = {trouble for trouble in self._troubles if trouble[0] != source}
            else:
                self._report(fetcher, source, message, error)
        self._notify()

    def _entry(self, source: str, record: Message) -> Entry:
        offset, size_bytes = record.offset() or 0, len(record.value() or b"")
        try:
            return Entry(offset, self._fact(record), size_bytes)
        except InvalidRequest as exc:
            log.warning("event_log.malformed", source=source, offset=offset, code=exc.code, reason=exc.message)
            return Entry(offset, None, size_bytes)

    def _fact(self, record: Message) -> Fact:
        """Requests are only on requests topics and events only on the other: who may submit may not say how it ends."""
        message = from_record(record, headers_of(record), self._names, self._link.clocks)
        if record.topic() == self._names.events_topic:
            return decode_any_event(message, logged_at(record))
        # What comes back from a delay is a copy: a request stands where it was accepted.
        is_copy = ATTEMPT in message.headers
        return decode_request(message, "" if is_copy else place_of(record), logged_at(record))

    def _report(self, fetcher: Consumer, source: str, message: Message, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._shelves.end(source, message.offset() or 0)
        elif code == KafkaError._AUTO_OFFSET_RESET:
            self._lost(fetcher, source, error)
        elif (source, code) not in self._troubles:
            self._troubles.add((source, code))
            log.error("event_log.read_failed", source=source, code=error.name(), reason=error.str())

    def _lost(self, fetcher: Consumer, source: str, error: KafkaError) -> None:
        """The position is not in the log: retention has been faster than we, or the topic was made anew."""
        log.error("event_log.gap", source=source, position=self._shelves.position(source), reason=error.str())
        if source in self._fetching:
            self._assign(fetcher, {source: OFFSET_BEGINNING})

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._list_at = 0.0


def _offset(position: str) -> int:
    return OFFSET_BEGINNING if position == START else int(position)
