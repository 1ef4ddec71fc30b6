"""Cancellations as records of the control topic, which keeps them for a day: longer than a job lives."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import structlog
from confluent_kafka import Message

from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record, key_of
from forebay.core.errors import ForebayError
from forebay.ports.cancellations import Cancellations

log = structlog.get_logger(__name__)

KIND = "cancel"
WAIT_S = 2.0


class KafkaCancellations(Cancellations):
    """Made on an event loop, on which `heard` grows. With an `ear` it hears of those of all processes."""

    def __init__(self, link: KafkaLink, publisher: Publisher, ear: ControlEar | None) -> None:
        super().__init__()
        self._topic = link.names.control_topic
        self._publisher = publisher
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._news: list[tuple[str, str]] = []
        if ear is not None:
            ear.listen(KIND, self._hear)

    async def announce(self, tenant: str, job_id: str) -> None:
        self.heard.add(tenant, job_id)
        record = Record(self._topic, f"{KIND}/".encode() + key_of(tenant, job_id), b"{}")
        try:
            await self._publisher.publish([record], wait_s=WAIT_S)
        except ForebayError as error:  # best effort: workers run it in vain
            log.warning("cancellations.unheard", job=job_id, error=error.message)

    def _hear(self, rest: str, record: Message) -> None:
        tenant, _, job_id = rest.rpartition("/")
        if record.value() is None or not tenant or not job_id:
            return
        with self._lock:
            self._news.append((tenant, job_id))
            if len(self._news) > 1:
                return  # the loop is about to look
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody works any more
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        with self._lock:
            news, self._news = self._news, []
        for tenant, job_id in news:
            self.heard.add(tenant, job_id)
