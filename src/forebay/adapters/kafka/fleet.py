"""What workers say of their models, as records of the control topic: of each key the newest stands.

value  a ModelReport in JSON, without what the key says; none once the worker has left in order
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog
from confluent_kafka import Message
from msgspec import Struct
from msgspec.structs import replace

from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record
from forebay.core.errors import ForebayError
from forebay.core.model import ModelStatus
from forebay.core.pace import Pace
from forebay.ports.fleet import Fleet, ModelReport

log = structlog.get_logger(__name__)

REPEAT_S = 5.0
FORGET_S = 20.0
"""Three repetitions may be lost before a worker counts as gone."""

OLD_S = 300.0
"""A record that is older when it is first read was left by a worker that died long ago. Far more than clocks of brokers
and of this host should differ."""

WAIT_S = 2.0
KIND = "fleet"

_encode = msgspec.json.Encoder().encode


class _Said(Struct, frozen=True, kw_only=True, omit_defaults=True):
    status: ModelStatus
    reason: str = ""
    replicas_ready: int = 0
    restarts: int = 0
    restarting: bool = False
    away: bool = False
    pace: Pace | None = None


_decode = msgspec.json.Decoder(_Said).decode


class KafkaFleet(Fleet):
    """With an `ear` it knows what other processes say.

    A report is repeated every REPEAT_S, and forgotten FORGET_S after it was last heard.
    """

    def __init__(
        self,
        link: KafkaLink,
        publisher: Publisher,
        ear: ControlEar | None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._topic = link.names.control_topic
        self._own: dict[str, ModelReport] = {}
        self._news = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._heard: dict[str, tuple[float, ModelReport]] = {}  # in the ear's thread it grows, here it is read
        if ear is not None:
            ear.listen(KIND, self._hear)

    async def open(self) -> None:
        self._speaking = asyncio.create_task(self._speak(), name="fleet")

    async def report(self, report: ModelReport) -> None:
        """Returns at once; it is sent as soon as it can be, and what tells nothing but another pace with the next
        repetition."""
        before = self._own.get(_key(report))
        self._own[_key(report)] = report
        if before is None or before.pace is None or replace(report, pace=before.pace) != before:
            self._news.set()

    async def reports(self) -> Sequence[ModelReport]:
        since = self._monotonic() - FORGET_S
        with self._lock:
            self._heard = {key: one for key, one in self._heard.items() if one[0] > since}
            heard = {key: report for key, (_, report) in self._heard.items()}
        return list({**heard, **self._own}.values())

    async def close(self) -> None:
        """Take leave, so that nobody waits for us to be forgotten."""
        if self._speaking is not None:
            self._speaking.cancel()
            await asyncio.wait({self._speaking})
            await self._send([Record(self._topic, _record_key(key), None) for key in self._own])

    async def _speak(self) -> None:
        while True:
            self._news.clear()
            said = {key: _said(one) for key, one in self._own.items()}
            await self._send([Record(self._topic, _record_key(key), _encode(one)) for key, one in said.items()])
            with contextlib.suppress(TimeoutError):  # no news: the same is said again
                async with asyncio.timeout(REPEAT_S):
                    await self._news.wait()

    async def _send(self, records: Sequence[Record]) -> None:
        try:
            await self._publisher.publish(records, wait_s=WAIT_S)
        except ForebayError as error:  # best effort: said again soon
            log.info("fleet.unheard", reason=error.message)

    def _hear(self, key: str, record: Message) -> None:
        value, parts = record.value(), key.split("/")
        if len(parts) != 3:
            return
        if value is None or self._clock() - record.timestamp()[1] / 1000 > OLD_S:
            with self._lock:
                self._heard.pop(key, None)
            return
        try:
            said = _decode(value)
        except (ValueError, msgspec.MsgspecError, RecursionError) as exc:  # not UTF-8; no JSON of ours; too deep
            log.warning("fleet.malformed", key=key, reason=str(exc))
            return
        report = ModelReport(
            worker=parts[0],
            model=parts[1],
            version=parts[2],
            **{name: getattr(said, name) for name in _Said.__struct_fields__},
        )
        with self._lock:
            self._heard[key] = (self._monotonic(), report)


def _said(report: ModelReport) -> _Said:
    return _Said(**{name: getattr(report, name) for name in _Said.__struct_fields__})


def _key(report: ModelReport) -> str:
    worker = report.worker.replace("/", "_")
    return f"{worker}/{report.model}/{report.version}"


def _record_key(key: str) -> bytes:
    return f"{KIND}/{key}".encode()
