"""Records out: one librdkafka producer, one thread that polls it, one event loop that waits.

    publish ─ produce() ─▶ librdkafka ─ delivery reports ─▶ the thread's poll ─ a call per burst ─▶ the loop ─▶ publish

The thread alone polls, so it alone sees reports: they gather in a list of its own, and each poll that brought some
makes one `call_soon_threadsafe`. It also finds out whether the brokers can be reached, and replaces a producer that has
failed for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from forebay.adapters.kafka.delivery import TOO_LARGE, Delivery, refusal
from forebay.adapters.kafka.gathering import Nagle, Turns
from forebay.adapters.kafka.lifeline import Lifeline
from forebay.adapters.kafka.link import REFUSALS, KafkaLink
from forebay.adapters.kafka.records import ANY_PARTITION, Record
from forebay.core.crash import reach
from forebay.core.errors import ForebayError, PayloadTooLarge, Unavailable

log = structlog.get_logger(__name__)

MAX_RECORD_BYTES = 1_000_000
QUEUE_BYTES = 64 * 1024 * 1024
POLL_S = 0.1
PROBE_S = 0.5
"""How long a question may take whose answer says that brokers can be reached; asked again at once while they cannot."""

REBUILD_EVERY_S = 1.0
"""A producer that failed is not replaced sooner than so long after it was made."""

FORBIDDEN = frozenset({KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED})
"""Who may write to no topic at all gets no producer id either: fatal for the producer, and no matter to a role that
publishes nothing. The next try to publish makes another, which ACLs may allow by then."""

PURGED_WITHIN_S = 1.0
"""How long reports of what was thrown away may take."""

EXPIRE_EVERY_S = 0.05
"""A clock for all that is on its way: one for each costs a submission as much as reading its JSON."""

WARM_UP_S = 0.55
"""librdkafka asks for its producer id at once or, if it had no connection yet, half a second later, and tells nobody
when it has it (rd_kafka_idemp_pid_fsm): the first record of a producer that is younger may take that long."""


class Reach(Enum):
    """Whether brokers can be reached. DOUBTED until they have been asked; only AWAY refuses to publish."""

    UP = "up"
    DOUBTED = "doubted"
    AWAY = "away"


class Publisher:
    """Durable publishing (acks=all, idempotent) for any number of tasks of one event loop.

    `gather_ms`: how long a publish waits at most, while others are in flight, for more to leave with (`Nagle`), and
    `gather_most`, for how many; one alone does not wait. `linger_ms`: how long librdkafka waits for the rest of what
    leaves together, which is handed over within that time. docs/decisions/kafka-publishing.md has what others cost.
    `message_timeout_s`: how long it tries to deliver one; longer than any `wait_s`, since what was not reported may
    still be delivered. `queue_bytes` bounds what waits in its queue. `warm_up_s`: see WARM_UP_S.
    """

    def __init__(
        self,
        link: KafkaLink,
        *,
        linger_ms: float = 0.3,
        gather_ms: float = 3.0,
        gather_most: int = 16,
        message_timeout_s: float = 10.0,
        max_record_bytes: int = MAX_RECORD_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        warm_up_s: float = WARM_UP_S,
        producer: Callable[[dict[str, Any]], Producer] = Producer,
    ) -> None:
        self.max_record_bytes = max_record_bytes
        self._warm_up_s = warm_up_s
        self._make = producer
        self._lifeline = Lifeline()
        self._config = link.config(
            **{
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "zstd",
                "linger.ms": linger_ms,
                "message.timeout.ms": int(message_timeout_s * 1000),
                "message.max.bytes": max_record_bytes,
                "partitioner": "murmur2_random",
                "queue.buffering.max.kbytes": max(queue_bytes // 1024, 1),
                # How long it hopes for a topic that a broker says it does not have: 30 s by default.
                "topic.metadata.propagation.max.ms": 1000,
                "error_cb": self._on_error,
                **self._lifeline.settings,
            }
        )
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reports: list[tuple[Delivery, KafkaError | None]] = []  # the thread's own
        self._open: set[Delivery] = set()  # the loop's own
        self._expiring: asyncio.TimerHandle | None = None
        self._room: list[asyncio.Future[None]] = []  # the loop's own: who waits for room in the queue
        self._nagle = Nagle(gather_ms / 1000, gather_most)
        self._turns = Turns()
        self._reach = Reach.DOUBTED
        self._fatal: KafkaError | None = None
        self._made_at = 0.0
        self._wanted = False  # somebody has tried to publish since the producer failed
        self.told: tuple[float, float] | None = None
        """What time the brokers said it was, in seconds since the epoch, when they last confirmed a record; and when
        that was heard, by the monotonic clock."""
        self._not_let_in = ""  # why, since brokers were last asked
        self._topic: str | None = None  # the last one published to: what is asked for when brokers are probed
        self._closing = threading.Event()
        self._flush_s = 0.0

    @property
    def up(self) -> bool:
        """Whether `publish` would try. False only when a question to the brokers went unanswered."""
        return self._reach is not Reach.AWAY

    async def open(self, wait_s: float = 2.0) -> None:
        """Connect and warm up, so that the first `publish` need not: up to `wait_s`. Brokers that are away are no
        error."""
        self._loop = asyncio.get_running_loop()
        warm_at = self._loop.time() + self._warm_up_s
        self._producer = self._make(self._config)
        self._thread = threading.Thread(target=self._run, name="kafka-publisher", daemon=True)
        self._thread.start()
        deadline = self._loop.time() + wait_s
        while self._reach is Reach.DOUBTED and self._loop.time() < deadline:
            await self._settled(deadline)
        if self.up:
            await asyncio.sleep(max(0.0, min(warm_at, deadline) - self._loop.time()))

    async def publish(self, records: Sequence[Record], *, wait_s: float) -> None:
        """Append; every record is durable, in the sense of its topic's settings, when this returns.

        Raises Unavailable when nothing was written (brokers known to be away, no room in the queue, a broker refused),
        PayloadTooLarge when one will never be taken (others may be written), and OutcomeUnknown, after `wait_s` and
        EXPIRE_EVERY_S at most, when nobody can say. Cancellation changes nothing of what was handed over.
        """
        if not records:
            return
        assert self._loop is not None, "open() comes first"
        for record in records:
            if record.size_bytes > self.max_record_bytes:
                raise self._too_large(record)
        if self._reach is Reach.AWAY:
            raise Unavailable("no Kafka broker can be reached")
        if (fatal := self._fatal) is not None:
            self._wanted = True
            raise Unavailable(f"a new producer is being made, since this one failed: {fatal.str()}")
        reach("kafka.before_produce")
        delivery = Delivery(self._loop, records, self._loop.time() + wait_s)
        self._open.add(delivery)
        if self._expiring is None:
            self._expiring = self._loop.call_later(EXPIRE_EVERY_S, self._expire)
        try:
            async with self._nagle:
                await self._hand_over(delivery)
                await delivery.done
        except Unavailable:
            self._doubt()  # asking also tells librdkafka of topics that are new
            raise
        finally:
            self._open.discard(delivery)
            delivery.done.cancel()  # if we were cancelled, nobody asks for its outcome
        reach("kafka.after_delivery")

    async def close(self, timeout_s: float = 10.0) -> None:
        """Wait for reports of what was handed over, at most `timeout_s`; what has none by then is unknown."""
        if self._thread is not None:
            self._flush_s = timeout_s
            self._closing.set()
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            await asyncio.sleep(0)  # for the thread's last reports
            for delivery in self._open:
                delivery.expire()

    def _expire(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for delivery in self._open:
            if delivery.expires_at <= now:
                delivery.expire()
        self._expiring = self._loop.call_later(EXPIRE_EVERY_S, self._expire) if self._open else None

    async def _hand_over(self, delivery: Delivery) -> None:
        """Hand all its records to librdkafka, waiting for room if there was some for the first."""
        assert self._loop is not None
        for index, record in enumerate(delivery.records):
            while (refused := self._produce(record, delivery)) is not None:
                if index == 0 or not isinstance(refused, _NoRoom):
                    delivery.cut_short(index, refused)
                    return
                await self._settled(delivery.expires_at)
                if self._loop.time() >= delivery.expires_at:
                    delivery.expire()
                if delivery.done.done():
                    return

    def _produce(self, record: Record, delivery: Delivery) -> ForebayError | None:
        producer, self._topic = self._producer, record.topic
        assert producer is not None
        partition = record.partition
        if partition == ANY_PARTITION:
            partition = self._turns.partition(record.topic, self._nagle.departure)
        try:
            producer.produce(
                record.topic,
                record.value,
                record.key,
                partition,
                on_delivery=lambda error, record: self._reported(delivery, error, record),
                headers=list(record.headers),
            )
        except BufferError:
            return _NoRoom("the queue to Kafka is full")
        except KafkaException as exc:
            return self._refusal(exc.args[0], record)
        return None

    def _refusal(self, error: KafkaError, record: Record) -> ForebayError:
        """Why `produce` took nothing."""
        if error.code() in TOO_LARGE:
            return self._too_large(record)
        return Unavailable(f"{record.topic}: {refusal(error)}")

    def _too_large(self, record: Record) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"a record of {record.size_bytes} bytes is more than Kafka takes", limit_bytes=self.max_record_bytes
        )

    async def _settled(self, deadline: float) -> None:
        """Until something was reported, or `deadline`."""
        assert self._loop is not None
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room.append(waiter)
        with contextlib.suppress(TimeoutError):  # the caller looks at the time itself
            async with asyncio.timeout_at(deadline):
                await waiter

    def _settle(self, reports: Sequence[tuple[Delivery, KafkaError | None]]) -> None:
        for delivery, error in reports:
            delivery.reported(error, self.max_record_bytes)
        waiters, self._room = self._room, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _doubt(self) -> None:
        if self._reach is Reach.UP:
            self._reach = Reach.DOUBTED

    # ------------------------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._turn()
            except Exception:  # the edge of the thread: without it nothing would be reported any more
                log.exception("kafka.publisher_failed")
                self._closing.wait(PROBE_S)
        assert self._producer is not None
        with contextlib.suppress(KafkaException):  # that it has failed
            self._producer.flush(self._flush_s)
        self._discard(self._producer)
        self._hand_back()

    def _turn(self) -> None:
        assert self._producer is not None
        self._poll(self._producer, POLL_S if self._reach is Reach.UP else 0)
        self._hand_back()
        if self._lifeline.cut and self._fatal is None:
            self._failed(KafkaError(KafkaError._ALL_BROKERS_DOWN, "it knows no broker any more"), wanted=True)
        if self._fatal is not None:
            self._discard(self._producer)
            self._hand_back()
            if self._wanted and time.monotonic() >= self._made_at + REBUILD_EVERY_S:
                self._rebuild()
        if self._reach is not Reach.UP:
            self._probe(self._producer)
        else:
            self._turns.learn(self._producer, time.monotonic())

    def _poll(self, producer: Producer, wait_s: float) -> None:
        """Callbacks run in here. That a producer has failed for good is raised, and not told to `_on_error`."""
        try:
            producer.poll(wait_s)
        except KafkaException as exc:
            error: KafkaError = exc.args[0]
            if not error.fatal():
                raise
            self._failed(error, wanted=error.code() not in FORBIDDEN)

    def _failed(self, error: KafkaError, *, wanted: bool) -> None:
        self._fatal, self._wanted = error, wanted
        log.warning("kafka.producer_failed", code=error.name(), reason=error.str())

    def _reported(self, delivery: Delivery, error: KafkaError | None, record: Message) -> None:
        if error is None:
            self.told = record.timestamp()[1] / 1000, time.monotonic()
        self._reports.append((delivery, error))

    def _hand_back(self, *, always: bool = False) -> None:
        if self._reports or always:
            reports, self._reports = self._reports, []
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._settle, reports)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._doubt()
        elif error.code() in REFUSALS:
            self._not_let_in = error.str()

    def _probe(self, producer: Producer) -> None:
        """Ask for the metadata of a topic. The answer says that produce requests would be answered as well."""
        before, began = self._reach, time.monotonic()
        try:
            if self._topic is None:
                producer.list_topics(timeout=PROBE_S)
            else:
                producer.list_topics(self._topic, timeout=PROBE_S)
        except KafkaException as exc:
            self._reach = Reach.AWAY
            self._poll(producer, 0)  # for `_on_error`, which may know why
            if before is not Reach.AWAY:
                log.warning("kafka.away", reason=self._not_let_in or exc.args[0].str())
            self._not_let_in = ""
            self._closing.wait(max(0.0, PROBE_S - (time.monotonic() - began)))  # an error that came at once
        else:
            self._reach = Reach.UP
            if before is Reach.AWAY:
                log.info("kafka.back")
        if before is Reach.DOUBTED:
            self._hand_back(always=True)

    def _rebuild(self) -> None:
        """After a fatal error a producer takes nothing more, and one that knows no broker brings nothing anywhere."""
        self._producer = self._make(self._config)
        self._lifeline.renew()
        self._fatal, self._made_at = None, time.monotonic()
        log.info("kafka.producer_replaced")

    def _discard(self, producer: Producer) -> None:
        """What it holds is unknown, and told so."""
        producer.purge()
        with contextlib.suppress(KafkaException):  # that it has failed
            producer.flush(PURGED_WITHIN_S)


class _NoRoom(Unavailable):
    """librdkafka's queue is full."""
