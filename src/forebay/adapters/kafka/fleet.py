"""What workers say of their models, as records of the compacted control topic: the newest of each key stands.

key    fleet/<worker>/<model>/<version>
value  {"status", "reason", "replicas_ready"} in JSON; none once the worker has left in order
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from msgspec import Struct

from forebay.adapters.kafka.lifeline import Lifeline
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record
from forebay.adapters.kafka.waiting import blocking
from forebay.core.errors import ForebayError
from forebay.core.model import ModelStatus
from forebay.ports.fleet import Fleet, ModelReport

log = structlog.get_logger(__name__)

REPEAT_S = 5.0
FORGET_S = 20.0
"""Three repetitions may be lost before a worker counts as gone."""

OLD_S = 300.0
"""A record that is older when it is first read was left by a worker that died long ago. Far more than clocks of brokers
and of this host should differ."""

POLL_S = 0.5
AGAIN_S = 5.0
WAIT_S = 2.0
KIND = "fleet"

_encode = msgspec.json.Encoder().encode


class _Said(Struct, frozen=True):
    status: ModelStatus
    reason: str = ""
    replicas_ready: int = 0


_decode = msgspec.json.Decoder(_Said).decode


class KafkaFleet(Fleet):
    """`listening`: whether this process wants to know what others say; a thread of its own then reads the topic.

    A report is repeated every REPEAT_S, and forgotten FORGET_S after it was last heard.
    """

    def __init__(
        self,
        link: KafkaLink,
        publisher: Publisher,
        *,
        listening: bool,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._topic = link.names.control_topic
        self._own: dict[bytes, ModelReport] = {}
        self._news = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None
        self._ear = _Ear(link, clock, monotonic) if listening else None

    async def open(self) -> None:
        self._speaking = asyncio.create_task(self._speak(), name="fleet")
        if self._ear is not None:
            self._ear.start()

    async def report(self, report: ModelReport) -> None:
        """Returns at once; it is sent as soon as it can be."""
        self._own[_key(report)] = report
        self._news.set()

    async def reports(self) -> Sequence[ModelReport]:
        heard = self._ear.heard() if self._ear is not None else {}
        return list({**heard, **self._own}.values())

    async def close(self) -> None:
        """Take leave, so that nobody waits for us to be forgotten."""
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.wait({self._speaking})
            await self._send([Record(self._topic, key, None) for key in self._own])
        if self._ear is not None:
            await blocking(self._ear.stop, "kafka-fleet-end")

    async def _speak(self) -> None:
        while True:
            self._news.clear()
            said = {key: _Said(one.status, one.reason, one.replicas_ready) for key, one in self._own.items()}
            await self._send([Record(self._topic, key, _encode(one)) for key, one in said.items()])
            with contextlib.suppress(TimeoutError):  # no news: the same is said again
                async with asyncio.timeout(REPEAT_S):
                    await self._news.wait()

    async def _send(self, records: Sequence[Record]) -> None:
        try:
            await self._publisher.publish(records, wait_s=WAIT_S)
        except ForebayError as error:  # best effort: said again soon
            log.info("fleet.unheard", reason=error.message)


class _Ear:
    """Reads the control topic from its start, in a thread that alone touches its consumer."""

    def __init__(self, link: KafkaLink, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._link = link
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._heard: dict[bytes, tuple[float, ModelReport]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-fleet", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def heard(self) -> dict[bytes, ModelReport]:
        since = self._monotonic() - FORGET_S
        with self._lock:
            self._heard = {key: one for key, one in self._heard.items() if one[0] > since}
            return {key: report for key, (_, report) in self._heard.items()}

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except Exception:  # the edge of the thread: without it nothing would be heard any more
                log.exception("fleet.ear_failed")
                self._stopping.wait(AGAIN_S)

    def _listen(self) -> None:
        """From the topic's start, until told to stop or as long as its consumer lives."""
        names = self._link.names
        # A group is asked for even where nothing is committed; this one never exists on a broker.
        lifeline = Lifeline()
        own = {"group.id": names.fleet_group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        consumer = Consumer(self._link.config(**own, **lifeline.settings))
        try:
            consumer.assign([TopicPartition(names.control_topic, 0, 0)])
            while not (self._stopping.is_set() or lifeline.cut):
                record = consumer.poll(POLL_S)
                if record is not None and record.error() is None:
                    self._hear(record)
            if lifeline.cut:
                log.warning("fleet.deaf", reason="it knows no broker any more")
        except KafkaException as exc:
            log.warning("fleet.deaf", reason=str(exc.args[0]))
            self._stopping.wait(AGAIN_S)
        finally:
            consumer.close()

    def _hear(self, record: Message) -> None:
        key, value = record.key() or b"", record.value()
        parts = key.decode(errors="replace").split("/")
        if len(parts) != 4 or parts[0] != KIND:
            return
        if value is None or self._clock() - record.timestamp()[1] / 1000 > OLD_S:
            with self._lock:
                self._heard.pop(key, None)
            return
        try:
            said = _decode(value)
        except (ValueError, msgspec.MsgspecError, RecursionError) as exc:  # not UTF-8; no JSON of ours; too deep
            log.warning("fleet.malformed", key=key.decode(errors="replace"), reason=str(exc))
            return
        report = ModelReport(
            worker=parts[1],
            model=parts[2],
            version=parts[3],
            status=said.status,
            reason=said.reason,
            replicas_ready=said.replicas_ready,
        )
        with self._lock:
            self._heard[key] = (self._monotonic(), report)


def _key(report: ModelReport) -> bytes:
    worker = report.worker.replace("/", "_")
    return f"{KIND}/{worker}/{report.model}/{report.version}".encode()
