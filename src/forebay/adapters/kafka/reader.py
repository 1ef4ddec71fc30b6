"""Records in: one librdkafka consumer and the one thread that ever calls it.

The thread polls at least every 100 ms whatever the model does, so no job is too long for `max.poll.interval.ms`.
Records go into the `Hand`, from which the event loop takes them; the thread commits what the loop has said of them:
each second, and at once where an attempt is to begin. It never dies: what fails is logged and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import confluent_kafka
import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from forebay.adapters.kafka.attempts import known_attempts
from forebay.adapters.kafka.commits import Commit
from forebay.adapters.kafka.entries import Entry, Place
from forebay.adapters.kafka.flow import Flow
from forebay.adapters.kafka.hand import Hand
from forebay.adapters.kafka.lifeline import Lifeline
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.records import GivenHeaders, headers_of
from forebay.adapters.kafka.tracker import Tracker
from forebay.core.crash import reach
from forebay.core.errors import InvalidRequest, Misconfigured
from forebay.core.message import Message

log = structlog.get_logger(__name__)

COMMIT_EVERY_S = 1.0
COMMIT_AFTER = 500
"""Completions: what a death repeats is bounded in time and in number."""

POLL_S = 0.1
QUICK_POLL_S = 0.05  # with something in hand
TICK_S, TICK_MOST_S = 0.005, 0.05
"""Between looks at the broker's messages while a `begin` may come, which is then served at once. Longer the longer
nothing happens: then a model is at work, and a new message has time."""

REBALANCING = frozenset({"ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "STALE_MEMBER_EPOCH"})
"""What brokers answer to a commit while members come and go. It says nothing of whether the partitions stay ours."""

DAMAGED = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION})
"""What arrived is not what was written. Going on would pass it over as if it were not there, so it is read again, for
ever if need be: then the disk of a broker is at fault, and somebody must see to it."""

AGAIN_S = 1.0
REBUILD_AFTER_S = 1.0
RETRY_S = 0.1
LAST_COMMIT_S = 3.0
"""How long a commit is tried when a partition goes, or at the end. Without it, what was done since the last one is done
again by the next owner."""

QUESTION_S = 5.0
ANSWER_WITHIN_S = 30.0
"""So long is the same question asked again. A client that knows no broker any more (Lifeline) never gets an answer."""


class Reader:
    """A member of a group that reads `topics` into `hand`.

    `read` makes a message of a record and its headers or raises InvalidRequest; `unreadable` is called in the thread
    with those for which it did, which stay in hand until somebody lets go of them.
    """

    def __init__(
        self,
        link: KafkaLink,
        plan: ConsumerPlan,
        group: str,
        topics: Sequence[str],
        hand: Hand,
        *,
        read: Callable[[confluent_kafka.Message, GivenHeaders], Message],
        unreadable: Callable[[list[Entry]], None],
        consumer: Callable[[dict[str, Any]], confluent_kafka.Consumer] = confluent_kafka.Consumer,
    ) -> None:
        self._make = consumer
        self._lifeline = Lifeline()
        self._config = plan.config(link, group, error_cb=self._on_error, **self._lifeline.settings)
        self._plan = plan
        self._group = group
        self._topics = list(topics)
        self._hand = hand
        self._read = read
        self._unreadable = unreadable
        self._thread: threading.Thread | None = None
        self._consumer: confluent_kafka.Consumer
        # The thread's own from here on.
        self._arrived: list[Entry] = []
        self._committed_at = 0.0
        self._commit_not_before = 0.0
        self._commit_fails = False
        self._tick_s = TICK_S
        self._flow = Flow(hand)
        # As librdkafka (2.16) has it: it remembers a pause while others have the partition, or while that is read
        # again, and would never fetch from it.
        self._paused: set[Place] = set()
        self._positions: dict[Place, int] = {}  # after the last record that came whole
        self._resting: dict[Place, float] = {}  # until when, after a damaged record
        self._failed: str | None = None
        self._over = False  # it failed for good
        self._away = False

    def start(self) -> None:
        """Join the group. Harmless when it was started before. Raises Misconfigured for settings that do not work."""
        if self._thread is None:
            try:
                self._consumer = self._open()
            except KafkaException as exc:
                raise Misconfigured(f"Kafka's client does not take the settings: {exc.args[0].str()}") from exc
            self._thread = threading.Thread(target=self._run, name=f"kafka-reader {self._group}", daemon=True)
            self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end, after `Hand.close`; whether it did."""
        if self._thread is not None:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def _open(self) -> confluent_kafka.Consumer:
        consumer = self._make(self._config)
        self._lifeline.renew()
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        return consumer

    # ------------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._hand.closing:
            try:
                if self._lifeline.cut:
                    self._failed, self._over = "it knows no broker any more", True
                if self._failed is not None:  # first: what comes behind something lost would be taken for all there is
                    log.error("queue.consumer_failed", group=self._group, reason=self._failed)
                    self._rebuild()
                self._turn()
            except Exception:  # something read may be lost in here: back to what is committed
                self._failed = self._failed or "a fault of ours"
                log.exception("queue.reader_failed", group=self._group)
        try:
            self._commit_within(LAST_COMMIT_S)
            self._consumer.close()
        except Exception:
            log.exception("queue.reader_failed", group=self._group)

    def _turn(self) -> None:
        hand, now = self._hand, time.monotonic()
        if hand.requested or hand.ended_since_commit >= COMMIT_AFTER or now >= self._committed_at + COMMIT_EVERY_S:
            self._commit(now)
        self._regulate(now)
        room = 0 if self._flow.stopped else hand.wanted
        if room <= 0:
            hand.wait(POLL_S)
            self._poll(0)
        elif hand.expects_a_begin:
            if self._fill(room):
                self._tick_s = TICK_S
            else:
                hand.wait(self._tick_s)
                self._tick_s = min(self._tick_s * 1.5, TICK_MOST_S)
        elif self._poll(QUICK_POLL_S if hand.load else POLL_S):
            self._tick_s = TICK_S
            self._fill(room - 1)
        self._feed()

    def _fill(self, room: int) -> int:
        """What was fetched already, at most `room`; how many came. One by one, and not by `consume(n)`: that would mix
        records from before and after a rebalance of the same partition."""
        for count in range(room):
            if not self._poll(0):
                return count
        return room

    def _poll(self, timeout_s: float) -> bool:
        record = self._consumer.poll(timeout_s)
        if record is None:
            return False
        if (error := record.error()) is not None:
            self._on_error(error, record)
            return False
        self._arrived.append(self._entry(record))
        return True

    def _entry(self, record: confluent_kafka.Message) -> Entry:
        topic, partition, offset = record.topic(), record.partition(), record.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        place = (topic, partition)
        self._positions[place] = offset + 1
        entry = Entry(place=place, offset=offset, record=record)
        try:
            entry.headers = headers_of(record)
            entry.message = self._read(record, entry.headers)
            entry.known = known_attempts(entry.message.headers)
        except InvalidRequest as refusal:
            entry.refusal = refusal
        except Exception:  # a fault of ours must not make a record vanish
            log.exception("queue.read_failed", topic=topic, partition=partition, offset=offset)
            entry.refusal = InvalidRequest("the service failed on it", code="malformed_record")
        return entry

    def _feed(self) -> None:
        arrived, self._arrived = self._arrived, []
        unreadable = self._hand.unstash()
        if arrived:
            self._away = False
            unreadable += self._hand.feed(arrived)
        if unreadable:
            self._unreadable(unreadable)

    def _regulate(self, now: float) -> None:
        """Pause what is to be paused of ours, and nothing else."""
        self._resting = {place: until for place, until in self._resting.items() if now < until}
        paused = self._flow.paused(now) | self._resting.keys()
        if new := paused - self._paused:
            self._consumer.pause(_partitions(new))
        if over := (self._paused - paused).intersection(self._hand.places):
            self._consumer.resume(_partitions(over))
        self._paused = (self._paused - over) | paused

    # --------------------------------------------------------------------------------------------------------- commits

    def _commit(self, now: float) -> bool:
        """Commit what changed; whether nothing is left to be committed."""
        if now < self._commit_not_before:
            return False
        self._committed_at = now
        commit = self._hand.prepare()
        if commit is None:
            return True
        reach("kafka.before_begin_commit" if commit.requests else "kafka.before_commit")
        error = self._send(commit)
        reach("kafka.after_commit")
        now = time.monotonic()
        self._hand.settle(commit, error, now)
        if error is None:
            self._commit_fails = False
            return True
        if not self._commit_fails and error not in REBALANCING:
            self._commit_fails = True
            log.warning("queue.commit_failed", group=self._group, reason=error)
        self._commit_not_before = now + RETRY_S
        return False

    def _send(self, commit: Commit) -> str | None:
        """None, or why the brokers did not take it."""
        offsets = [
            TopicPartition(topic, partition, watermark, metadata)
            for (topic, partition), watermark, metadata in commit.offsets
        ]
        try:
            answered = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as exc:
            self._note(exc.args[0])
            return str(exc.args[0].name())
        for partition in answered or ():
            if partition.error is not None:
                return str(partition.error.name())
        return None

    def _commit_within(self, timeout_s: float) -> None:
        """Several times if need be: while a rebalance goes on, brokers refuse commits of a moment ago."""
        deadline = time.monotonic() + timeout_s
        self._commit_not_before = 0.0
        while not self._commit(time.monotonic()):
            if time.monotonic() + RETRY_S > deadline:
                log.warning("queue.left_uncommitted", group=self._group)
                return
            time.sleep(RETRY_S)

    # ------------------------------------------------------------------------------------- rebalances, inside of a poll

    def _on_assign(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        known = self._committed(consumer, partitions)
        starts = []
        for partition in known:
            place = (partition.topic, partition.partition)
            begun = partition.offset >= 0
            self._hand.assigned(place, Tracker.load(partition.offset, partition.metadata) if begun else None)
            self._positions[place] = partition.offset if begun else OFFSET_BEGINNING
            starts.append(TopicPartition(*place, self._positions[place]))
        consumer.incremental_assign(starts)
        self._away = False
        if starts:
            log.info("queue.assigned", group=self._group, partitions=_names(starts))

    def _committed(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """What the last owners committed. Without it nothing may be read, so this goes on until there is an answer:
        nothing of ours depends on the thread meanwhile but commits, which need the same brokers. After ANSWER_WITHIN_S
        another consumer asks."""
        told, deadline = "", time.monotonic() + ANSWER_WITHIN_S
        while partitions and not self._hand.closing:
            try:
                known = consumer.committed(partitions, timeout=QUESTION_S)
                errors = [partition.error for partition in known if partition.error is not None]
                if not errors:
                    return known
                reason = errors[0].name()
            except KafkaException as exc:
                reason = exc.args[0].name()
            if reason != told:
                log.warning("queue.committed_unknown", group=self._group, reason=reason)
            told = reason
            if time.monotonic() > deadline:
                self._failed = "no broker says what was committed"
                break
            time.sleep(RETRY_S)
        return []

    def _on_revoke(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """What has not begun is another's at once; what has may end first, within `drain_s`."""
        places = _places(partitions)
        self._hand.leaving(places)
        deadline = time.monotonic() + self._plan.drain_s
        while self._hand.busy_in(places) and not self._hand.closing:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                break
            self._hand.wait(min(remaining_s, RETRY_S))
            if self._hand.requested:  # of partitions that stay
                self._commit(time.monotonic())
        # The outcome of what still runs will be published all the same. Were it taken for cut off, a long job would
        # fail as `worker_lost` for nothing but three moves of its partition.
        self._hand.let_run_elsewhere(places)
        self._commit_within(LAST_COMMIT_S)
        self._forget(places)
        if places:
            log.info("queue.revoked", group=self._group, partitions=_names(partitions))

    def _on_lost(self, consumer: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
        """They are another's already: a commit would only be refused."""
        self._forget(_places(partitions))
        log.warning("queue.lost", group=self._group, partitions=_names(partitions))

    def _forget(self, places: set[Place]) -> None:
        self._arrived = [entry for entry in self._arrived if entry.place not in places]
        self._hand.gone(places)
        for place in places:
            self._positions.pop(place, None)
            self._resting.pop(place, None)

    # ---------------------------------------------------------------------------------------------------------- errors

    def _on_error(self, error: KafkaError, record: confluent_kafka.Message | None = None) -> None:
        self._note(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if not self._away:
                log.warning("kafka.away", group=self._group)
            self._away = True
        elif record is not None:
            log.error(
                "kafka.consumer_error",
                group=self._group,
                topic=record.topic(),
                partition=record.partition(),
                offset=record.offset(),
                code=error.name(),
                reason=error.str(),
            )
            self._get_over(error, (record.topic() or "", record.partition() or 0))

    def _get_over(self, error: KafkaError, place: Place) -> None:
        if place not in self._positions:
            return
        if error.code() in DAMAGED:
            self._read_again(place, self._positions[place])
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._read_again(place, self._in_the_log(place))

    def _read_again(self, place: Place, position: int) -> None:
        """From there, in a moment. No other partition stands still for it."""
        self._consumer.incremental_unassign([TopicPartition(*place)])
        self._consumer.incremental_assign([TopicPartition(*place, position)])
        self._positions[place] = position
        self._resting[place] = time.monotonic() + AGAIN_S

    def _in_the_log(self, place: Place) -> int:
        """Where to read on when the brokers say that they do not have what was asked for: the log's beginning, where
        retention has been faster than we, or the log was cut. But after a bad checksum librdkafka (2.16) asks for an
        offset that it never had from anybody; then our position is as good as before."""
        position = self._positions[place]
        try:
            bounds = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=QUESTION_S)
        except KafkaException:
            bounds = None
        if bounds is None or bounds[0] <= position <= bounds[1]:  # None: should it be wrong, we are here again soon
            return position
        log.error("queue.position_gone", topic=place[0], partition=place[1], position=position, log=bounds)
        return OFFSET_BEGINNING

    def _note(self, error: KafkaError) -> None:
        if error.fatal():
            self._over = True
            self._failed = f"{error.str()} ({error.name()})"

    def _rebuild(self) -> None:
        """Another consumer, from what is committed. After a fatal error the old one takes part in nothing any more, nor
        does one that knows no broker; else it commits first what is done, and that what runs was not cut off."""
        places = set(self._hand.places)
        if not self._over:
            self._hand.let_run_elsewhere(places)
            self._commit_within(LAST_COMMIT_S)
        time.sleep(REBUILD_AFTER_S)
        self._forget(places)
        failed, self._consumer = self._consumer, self._open()
        self._paused.clear()
        self._failed, self._over = None, False
        failed.close()


def _partitions(places: set[Place]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for topic, partition in places]


def _places(partitions: list[TopicPartition]) -> set[Place]:
    return {(partition.topic, partition.partition) for partition in partitions}


def _names(partitions: list[TopicPartition]) -> list[str]:
    return sorted(f"{partition.topic}:{partition.partition}" for partition in partitions)
