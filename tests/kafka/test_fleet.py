"""What a worker says of its models is heard in other processes, and forgotten when it falls silent."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

import pytest
from confluent_kafka.cimpl import NewTopic
from msgspec import structs
from tests.kafka.client import admin, open_up

from dev.kafka.broker import Broker
from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.fleet import FORGET_S, OLD_S, KafkaFleet
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record
from forebay.core.model import ModelStatus
from forebay.core.pace import Pace
from forebay.ports.fleet import ModelReport
from forebay.testing.clock import HandClock

WITHIN_S = 30.0
PACE = Pace(
    jobs_per_s=4.0, batches=50, batch_size=2.0, service_s=0.5, service_sd_s=0.1, running=1, finished_per_s={"low": 1.5}
)
READY = ModelReport(
    worker="w-1",
    model="cats",
    version="3",
    status=ModelStatus.READY,
    replicas_ready=2,
    restarts=3,
    away=True,
    pace=PACE,
)


class Sky:
    """One control topic, and fleets on it. Clocks stand still until a test moves them."""

    def __init__(self, link: KafkaLink, stack: AsyncExitStack) -> None:
        self.link = link
        self.wall, self.monotonic = HandClock(), HandClock()
        self._stack = stack

    async def publisher(self) -> Publisher:
        publisher = Publisher(self.link)
        await open_up(publisher)
        self._stack.push_async_callback(publisher.close)
        return publisher

    async def fleet(self, *, listening: bool = False) -> KafkaFleet:
        ear = ControlEar(self.link)
        fleet = KafkaFleet(
            self.link,
            await self.publisher(),
            ear if listening else None,
            clock=self.wall,
            monotonic=self.monotonic,
        )
        await fleet.open()
        self._stack.push_async_callback(fleet.close)
        ear.open()
        self._stack.push_async_callback(ear.close)
        return fleet


@pytest.fixture
async def sky(kafka: Broker) -> AsyncIterator[Sky]:
    link = KafkaLink(bootstrap=kafka.bootstrap, prefix=f"t{uuid.uuid4().hex}")
    topic = NewTopic(link.names.control_topic, num_partitions=1, config={"cleanup.policy": "compact"})
    client = admin(kafka.bootstrap)
    for created in client.create_topics([topic], operation_timeout=WITHIN_S).values():
        created.result(WITHIN_S)
    async with AsyncExitStack() as stack:
        yield Sky(link, stack)


async def becomes(fleet: KafkaFleet, condition: Callable[[Sequence[ModelReport]], bool]) -> Sequence[ModelReport]:
    deadline = time.monotonic() + WITHIN_S
    while not condition(reports := await fleet.reports()):
        assert time.monotonic() < deadline, f"not so after {WITHIN_S:g} s: {reports}"
        await asyncio.sleep(0.01)
    return reports


async def test_a_report_is_heard_in_another_process_and_replaced_by_the_next(sky: Sky) -> None:
    worker, api = await sky.fleet(), await sky.fleet(listening=True)
    await worker.report(structs.replace(READY, status=ModelStatus.LOADING, reason="it is large"))
    await becomes(api, lambda reports: bool(reports) and reports[0].reason == "it is large")
    await worker.report(READY)
    assert await becomes(api, lambda reports: reports[0].status is ModelStatus.READY) == [READY]


async def test_another_pace_alone_is_heard_too_with_the_next_repetition(
    sky: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.adapters.kafka.fleet.REPEAT_S", 0.05)
    worker, api = await sky.fleet(), await sky.fleet(listening=True)
    await worker.report(READY)
    await becomes(api, bool)
    faster = structs.replace(READY, pace=structs.replace(PACE, jobs_per_s=8.0))
    await worker.report(faster)
    await becomes(api, lambda reports: list(reports) == [faster])


async def test_what_was_said_before_one_listened_is_heard(sky: Sky) -> None:
    worker = await sky.fleet()
    await worker.report(READY)
    early = await sky.fleet(listening=True)
    await becomes(early, bool)
    late = await sky.fleet(listening=True)
    assert await becomes(late, bool) == [READY]


async def test_one_that_leaves_in_order_is_forgotten_at_once(sky: Sky) -> None:
    worker, api = await sky.fleet(), await sky.fleet(listening=True)
    await worker.report(READY)
    await becomes(api, bool)
    await worker.close()
    await becomes(api, lambda reports: not reports)


async def test_one_that_falls_silent_is_forgotten_after_a_while(sky: Sky) -> None:
    worker, api = await sky.fleet(), await sky.fleet(listening=True)
    await worker.report(READY)
    await becomes(api, bool)
    sky.monotonic.now += FORGET_S + 1
    assert await api.reports() == []


async def test_a_record_of_one_that_died_long_ago_is_not_believed(sky: Sky) -> None:
    worker = await sky.fleet()
    await worker.report(READY)
    await becomes(await sky.fleet(listening=True), bool)
    sky.wall.now = 4e9 + OLD_S  # the far future of every record
    late = await sky.fleet(listening=True)
    other = structs.replace(READY, worker="w-2")
    await late.report(other)
    publisher = await sky.publisher()
    await publisher.publish([Record(sky.link.names.control_topic, b"fleet/a/b/c", b"{}")], wait_s=WITHIN_S)
    assert await late.reports() == [other]


async def test_what_nobody_can_read_is_passed_over(sky: Sky) -> None:
    publisher, api = await sky.publisher(), await sky.fleet(listening=True)
    topic = sky.link.names.control_topic
    records = [Record(topic, b"fleet/a/b/c", b"?"), Record(topic, b"\xff", b"{}"), Record(topic, b"cancel/x", b"{}")]
    await publisher.publish(records, wait_s=WITHIN_S)
    await (await sky.fleet()).report(READY)
    assert await becomes(api, bool) == [READY]
