"""A broker that is stopped in order leaves itself out of its last answers: its clients must not be lost by that."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import msgspec
import pytest
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec.structs import replace
from tests.kafka.client import WITHIN_S, create_topic, create_topics
from tests.kafka.queues import CHANNEL, KafkaPlace, publish, receive_all, until

from dev.kafka.broker import Broker
from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.event_log import KafkaEventLog
from forebay.adapters.kafka.fleet import KafkaFleet
from forebay.adapters.kafka.follower import FollowerPlan
from forebay.adapters.kafka.lifeline import CERTAIN_AFTER, Lifeline
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.names import EVENTS_PARTITIONS
from forebay.adapters.kafka.offsets import Offsets
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.adapters.kafka.records import Record
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.model import ModelStatus
from forebay.ports.event_log import START
from forebay.ports.fleet import ModelReport
from forebay.testing.samples import event, job_id

CLIENTS = 8
ASK_S = 0.3
NOBODY = msgspec.json.encode({"brokers": {"GroupCoordinator": {"source": "logical"}}}).decode()
PLANS = [FollowerPlan(), FollowerPlan(whole=True)]
REPLACED = Counter(
    {"kafka.producer_failed": 1, "queue.consumer_failed": 1, "event_log.follower_failed": len(PLANS), "control.deaf": 1}
)
SAID = b'{"status": "ready", "replicas_ready": 2}'
READY = ModelReport(worker="w-1", model="cats", version="3", status=ModelStatus.READY, replicas_ready=2)

Cut = Callable[[], None]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Asking:
    """A client that asks for metadata without pause, so that it hears a broker's last answers."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.lifeline = Lifeline()
        self.answered = threading.Event()
        self._client = Producer(KafkaLink(bootstrap=bootstrap).config(**self.lifeline.settings))
        self._topic = topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(KafkaException):  # no broker answers: asked again
                self._client.list_topics(self._topic, timeout=ASK_S)
                self.answered.set()
            self._client.poll(0)


@pytest.fixture
def asking(kafka: Broker) -> Iterator[list[Asking]]:
    topic = create_topic(kafka.bootstrap)
    clients = [Asking(kafka.bootstrap, topic) for _ in range(CLIENTS)]
    yield clients
    for client in clients:
        client.stop()


async def test_a_client_comes_back_or_it_is_known_that_it_never_will(kafka: Broker, asking: list[Asking]) -> None:
    for _ in range(2):  # a client that only knows the bootstrap address has no broker to forget
        for client in asking:
            assert client.lifeline.cut or await asyncio.to_thread(client.answered.wait, WITHIN_S)
        await asyncio.to_thread(kafka.stop)
        await asyncio.to_thread(kafka.start)
        for client in asking:
            client.answered.clear()

    async with asyncio.timeout(WITHIN_S):
        while not all(client.answered.is_set() or client.lifeline.cut for client in asking):  # noqa: ASYNC110 - threads
            await asyncio.sleep(0.1)
    assert not all(client.lifeline.cut for client in asking), "beginning again with the bootstrap servers helps most"


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Tells the owner of every client that there is that it knows no broker, as its statistics would."""
    lifelines: list[Lifeline] = []
    look = Lifeline._look
    born = Lifeline.__init__

    def watched(one: Lifeline) -> None:
        born(one)
        lifelines.append(one)

    monkeypatch.setattr(Lifeline, "__init__", watched)
    monkeypatch.setattr(Lifeline, "_look", lambda one, statistics: None)  # what they say in truth

    def cut_all() -> None:
        for one in [*lifelines]:
            for _ in range(CERTAIN_AFTER):
                look(one, NOBODY)

    return cut_all


class Everyone:
    """Whoever has clients, at work: a consumer, two that follow the log, one that hears the fleet, one publisher."""

    def __init__(self, place: KafkaPlace, queue: KafkaQueue) -> None:
        self._queue, self._publisher, self._names = queue, place.publisher, place.names
        self._consumer = queue.consumer(CHANNEL)
        self._logs = [KafkaEventLog(place.link, place.publisher, plan) for plan in PLANS]
        self._ear = ControlEar(place.link)
        self._fleet = KafkaFleet(place.link, place.publisher, self._ear)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for log in self._logs:
                await log.open()
                stack.push_async_callback(log.close)
            await self._fleet.open()
            stack.push_async_callback(self._fleet.close)
            self._ear.open()
            stack.push_async_callback(self._ear.close)
            yield

    async def works(self, number: int) -> None:
        """A job, an event and a report, each published and received."""
        report = replace(READY, worker=f"w-{number}")
        said = Record(self._names.control_topic, f"fleet/{report.worker}/cats/3".encode(), SAID)

        async def published() -> bool:
            try:
                await publish(self._queue, [number])
            except Unavailable:  # while another producer is made
                return False
            return True

        async def heard() -> bool:
            return report in await self._fleet.reports()

        await until(published)
        await self._logs[0].publish([event(number, EventKind.STARTED)])
        await self._publisher.publish([said], wait_s=WITHIN_S)
        await self._consumer.ack(await receive_all(self._consumer, 1))
        for log in self._logs:
            await read_until(log, number)
        await until(heard)


async def test_whoever_has_a_client_that_is_cut_off_makes_another(kafka: Broker, cut: Cut) -> None:
    place = KafkaPlace(kafka.bootstrap)
    create_topics(kafka.bootstrap, {place.names.events_topic: EVENTS_PARTITIONS, place.names.control_topic: 1})

    with structlog.testing.capture_logs() as told:

        async def noticed() -> bool:
            return not REPLACED - Counter(one["event"] for one in told)

        async with place.queue() as queue:
            everyone = Everyone(place, queue)
            async with everyone.working():
                await everyone.works(1)
                cut()
                await until(noticed)
                await everyone.works(2)


async def read_until(log: KafkaEventLog, number: int) -> None:
    """The event of this number, wherever it is."""
    after: dict[str, str] = {}
    async with asyncio.timeout(WITHIN_S):
        while True:
            after = {source: after.get(source, START) for source in log.sources()}
            for batch in await log.read(after, 100, 0.5):
                if any(isinstance(fact, JobEvent) and fact.job_id == job_id(number) for fact in batch.facts):
                    return
                after[batch.source] = batch.end


async def test_questions_after_one_without_an_answer_are_asked_by_another_client(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = KafkaLink(bootstrap=kafka.bootstrap, prefix=f"t{uuid.uuid4().hex[:12]}")
    create_topics(kafka.bootstrap, {link.names.events_topic: 2})
    offsets = Offsets(link)
    assert len(offsets.sources()) == 2

    def silent(*_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    monkeypatch.setattr(offsets._admin, "list_topics", silent)
    with pytest.raises(Unavailable):
        offsets.sources()
    assert len(offsets.sources()) == 2
