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
from confluent_kafka import KafkaError, KafkaException, Producer

from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.records import Record
from forebay.core.crash import reach
from forebay.core.errors import ForebayError, OutcomeUnknown, PayloadTooLarge, Unavailable

log = structlog.get_logger(__name__)

MAX_RECORD_BYTES = 1_000_000
QUEUE_BYTES = 64 * 1024 * 1024
POLL_S = 0.1
PROBE_S = 0.5
"""How long a question may take whose answer says that brokers can be reached; asked again at once while they cannot."""

WARM_UP_S = 0.55
"""librdkafka asks for its producer id at once or, if it had no connection yet, half a second later, and tells nobody
when it has it (rd_kafka_idemp_pid_fsm): the first record of a producer that is younger may take that long."""

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE})
REFUSED = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
    }
)
"""A broker has said no: nothing was written. Any other error may mean a record that is written, or will be."""


class Reach(Enum):
    """Whether brokers can be reached. DOUBTED until they have been asked; only AWAY refuses to publish."""

    UP = "up"
    DOUBTED = "doubted"
    AWAY = "away"


class Publisher:
    """Durable publishing (acks=all, idempotent) for any number of tasks of one event loop.

    `linger_ms`: how long librdkafka waits for more records before it sends. 1: a lone publish takes 1.4 ms at the
    median (0.3 at 0, 2.4 at 2, 5.5 at 5), and 5,000 a second cost 165 microseconds of CPU each, the broker's included
    (210 at 0, 145 at 2, 115 at 5); docs/decisions/kafka-publishing.md.
    `message_timeout_s`: how long it tries to deliver one; longer than any `wait_s`, since what was not reported may
    still be delivered. `queue_bytes` bounds what waits in its queue. `warm_up_s`: see WARM_UP_S.
    """

    def __init__(
        self,
        link: KafkaLink,
        *,
        linger_ms: float = 1.0,
        message_timeout_s: float = 10.0,
        max_record_bytes: int = MAX_RECORD_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        warm_up_s: float = WARM_UP_S,
        producer: Callable[[dict[str, Any]], Producer] = Producer,
    ) -> None:
        self.max_record_bytes = max_record_bytes
        self._warm_up_s = warm_up_s
        self._make = producer
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
                "topic.metadata.propagation.max.ms": 2000,
                "error_cb": self._on_error,
            }
        )
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reports: list[tuple[_Publish, KafkaError | None]] = []  # the thread's own
        self._room: list[asyncio.Future[None]] = []  # the loop's own: who waits for room in the queue
        self._reach = Reach.DOUBTED
        self._fatal = False
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
        PayloadTooLarge when one will never be taken (others may be written), and OutcomeUnknown, after `wait_s` at
        most, when nobody can say. Cancellation changes nothing of what was handed over.
        """
        if not records:
            return
        assert self._loop is not None, "open() comes first"
        for record in records:
            if record.size_bytes > self.max_record_bytes:
                raise self._too_large(record)
        if self._reach is Reach.AWAY:
            raise Unavailable("no Kafka broker can be reached")
        reach("kafka.before_produce")
        publish = _Publish(self._loop, records)
        timer = self._loop.call_later(wait_s, publish.expire)
        try:
            await self._hand_over(publish, self._loop.time() + wait_s)
            await publish.done
        except OutcomeUnknown:
            self._doubt()
            raise
        finally:
            timer.cancel()
            publish.done.cancel()  # if we were cancelled, nobody asks for its outcome
        reach("kafka.after_delivery")

    async def close(self, timeout_s: float = 10.0) -> None:
        """Wait for reports of what was handed over, at most `timeout_s`; what has none by then is unknown."""
        if self._thread is not None:
            self._flush_s = timeout_s
            self._closing.set()
            await asyncio.to_thread(self._thread.join)
            self._thread = None
            await asyncio.sleep(0)  # the thread's last reports

    async def _hand_over(self, publish: _Publish, deadline: float) -> None:
        """Hand all its records to librdkafka, waiting for room if there was some for the first."""
        for index, record in enumerate(publish.records):
            while (refusal := self._produce(record, publish)) is not None:
                if index == 0 or not isinstance(refusal, _NoRoom):
                    publish.cut_short(index, refusal)
                    return
                await self._settled(deadline)
                if publish.done.done():
                    return

    def _produce(self, record: Record, publish: _Publish) -> ForebayError | None:
        producer, self._topic = self._producer, record.topic
        assert producer is not None
        try:
            producer.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                on_delivery=lambda error, delivered: self._reported(publish, error),
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
        return Unavailable(f"Kafka does not take a record for {record.topic}: {error.str()}")

    def _too_large(self, record: Record) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"a record of {record.size_bytes} bytes is more than Kafka takes", limit_bytes=self.max_record_bytes
        )

    async def _settled(self, deadline: float) -> None:
        """Until something was reported, or `deadline`."""
        assert self._loop is not None
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room.append(waiter)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await waiter

    def _settle(self, reports: Sequence[tuple[_Publish, KafkaError | None]]) -> None:
        for publish, error in reports:
            publish.reported(error, self.max_record_bytes)
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
            self._turn()
        assert self._producer is not None
        self._producer.flush(self._flush_s)
        self._discard(self._producer)
        self._hand_back()

    def _turn(self) -> None:
        assert self._producer is not None
        self._producer.poll(POLL_S if self._reach is Reach.UP else 0)
        self._hand_back()
        if self._fatal:
            self._rebuild()
        if self._reach is not Reach.UP:
            self._probe(self._producer)

    def _reported(self, publish: _Publish, error: KafkaError | None) -> None:
        self._reports.append((publish, error))

    def _hand_back(self, *, always: bool = False) -> None:
        if self._reports or always:
            reports, self._reports = self._reports, []
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._settle, reports)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
            log.error("kafka.producer_failed", code=error.name(), reason=error.str())
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._doubt()

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
            if before is not Reach.AWAY:
                log.warning("kafka.away", reason=exc.args[0].str())
            self._closing.wait(max(0.0, PROBE_S - (time.monotonic() - began)))  # an error that came at once
        else:
            self._reach = Reach.UP
            if before is Reach.AWAY:
                log.info("kafka.back")
        if before is Reach.DOUBTED:
            self._hand_back(always=True)

    def _rebuild(self) -> None:
        """After a fatal error a producer takes nothing more. What it held is unknown."""
        failed, self._fatal = self._producer, False
        self._producer = self._make(self._config)
        assert failed is not None
        self._discard(failed)
        self._hand_back()
        log.info("kafka.producer_replaced")

    def _discard(self, producer: Producer) -> None:
        producer.purge()
        producer.poll(0)


class _NoRoom(Unavailable):
    """librdkafka's queue is full."""


class _Publish:
    """One call of `publish`: how many reports are missing, and what those that came have said."""

    __slots__ = ("done", "error", "missing", "records", "unknown", "written")

    def __init__(self, loop: asyncio.AbstractEventLoop, records: Sequence[Record]) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.records = records
        self.missing = len(records)
        self.written = 0
        self.unknown = ""
        self.error: ForebayError | None = None

    def reported(self, error: KafkaError | None, limit_bytes: int) -> None:
        if error is None:
            self.written += 1
        elif error.code() in TOO_LARGE:
            self.error = PayloadTooLarge("Kafka's topic does not take so large a record", limit_bytes=limit_bytes)
        elif error.code() in REFUSED:
            log.error("kafka.record_refused", topic=self.records[0].topic, code=error.name(), reason=error.str())
            self.error = self.error or Unavailable(f"Kafka refuses records: {error.str()} ({error.name()})")
        else:
            self.unknown = f"{error.str()} ({error.name()})"
        self.missing -= 1
        if self.missing <= 0:
            self._conclude()

    def cut_short(self, handed_over: int, error: ForebayError) -> None:
        """Only so many were handed over; `error` is of the next, and no other follows."""
        self.error = error
        self.missing -= len(self.records) - handed_over
        if self.missing <= 0:
            self._conclude()

    def expire(self) -> None:
        self._end(self._unknown("Kafka has not confirmed it in time"))

    def _conclude(self) -> None:
        if self.unknown:
            self._end(self._unknown(self.unknown))
        elif isinstance(self.error, Unavailable) and self.written:
            self._end(self._unknown(f"{self.written} of {len(self.records)} were written: {self.error.message}"))
        else:
            self._end(self.error)

    def _unknown(self, reason: str) -> OutcomeUnknown:
        key = (self.records[0].key or b"").decode(errors="replace")
        return OutcomeUnknown(reason, job_id=key.rpartition("/")[2])

    def _end(self, error: ForebayError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
