"""The control topic: short words among processes, the newest of each key.

key    fleet/<worker>/<model>/<version>   what a worker says of a model (`fleet.py`)
       cancel/<tenant>/<job id>           nobody wants this job any more (`cancellations.py`)
       tick                               nothing: who writes it learns the brokers' time (`event_log.py`)
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from forebay.adapters.kafka.lifeline import Lifeline
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.waiting import blocking

log = structlog.get_logger(__name__)

POLL_S = 0.5
AGAIN_S = 5.0

Hearer = Callable[[str, Message], None]
"""Told what follows the kind in a key, and the record; in the ear's thread."""


class ControlEar:
    """Reads the control topic from its start, in a thread that alone touches its consumer, for all who `listen`.

    It reads from the start again whenever its consumer had to be made anew, so everything may be heard twice.
    """

    def __init__(self, link: KafkaLink) -> None:
        self._link = link
        self._hearers: dict[str, Hearer] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-control", daemon=True)

    def listen(self, kind: str, hearer: Hearer) -> None:
        """Before `open`."""
        self._hearers[kind] = hearer

    def open(self) -> None:
        if self._hearers:
            self._thread.start()

    async def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            await blocking(self._thread.join, "kafka-control-end")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except Exception:  # the edge of the thread: without it nothing would be heard any more
                log.exception("control.ear_failed")
                self._stopping.wait(AGAIN_S)

    def _listen(self) -> None:
        """From the topic's start, until told to stop or as long as its consumer lives."""
        names = self._link.names
        # A group is asked for even where nothing is committed; this one never exists on a broker.
        lifeline = Lifeline()
        own = {"group.id": names.control_group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        consumer = Consumer(self._link.config(**own, **lifeline.settings))
        try:
            consumer.assign([TopicPartition(names.control_topic, 0, 0)])
            while not (self._stopping.is_set() or lifeline.cut):
                record = consumer.poll(POLL_S)
                if record is not None and record.error() is None:
                    self._hear(record)
            if lifeline.cut:
                log.warning("control.deaf", reason="it knows no broker any more")
        except KafkaException as exc:
            log.warning("control.deaf", reason=str(exc.args[0]))
            self._stopping.wait(AGAIN_S)
        finally:
            consumer.close()

    def _hear(self, record: Message) -> None:
        kind, _, rest = (record.key() or b"").decode(errors="replace").partition("/")
        if hearer := self._hearers.get(kind):
            hearer(rest, record)
