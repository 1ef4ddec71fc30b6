"""Which calls wait for the disk: what a caller was promised does, what can be done again does not."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.core.delivery import DeliveryEvent, DeliveryEventKind
from forebay.core.event import EventKind
from forebay.core.message import Channel
from forebay.core.payload import JSON, Payload
from forebay.testing.samples import event, failed, message, succeeded

CHANNEL = Channel("sample", "normal")


@pytest.fixture
def durable(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Says for each write, in order, whether it was handed in as durable."""
    handed_in: list[bool] = []
    write = database.write

    def record(*args: Any, durable: bool, **kwargs: Any) -> Any:
        handed_in.append(durable)
        return write(*args, durable=durable, **kwargs)

    monkeypatch.setattr(database, "write", record)
    return handed_in


async def test_publishing_is_durable_and_what_a_consumer_does_is_not(database: Database, durable: list[bool]) -> None:
    queue = SqliteQueue(database)
    consumer = queue.consumer(CHANNEL)
    await queue.publish(CHANNEL, [message(1), message(2)])
    assert durable == [True]
    one, two = await consumer.receive(2, 0.0)
    await consumer.begin([one, two])
    await consumer.ack([one])
    await consumer.nack([two], 1.0)
    assert durable == [True, False, False, False]


async def test_an_event_is_durable_if_it_ends_a_job_or_deletes_it(database: Database, durable: list[bool]) -> None:
    log = SqliteEventLog(database)
    for kind in EventKind:
        await log.publish([event(1, kind)])
    fleeting = {EventKind.QUEUED, EventKind.STARTED, EventKind.PROGRESS, EventKind.OUTPUT}
    final = [kind not in fleeting for kind in EventKind]
    assert durable == final
    await log.publish([event(2, EventKind.STARTED), failed(2)])
    assert durable == [*final, True]


@pytest.mark.parametrize("kind", DeliveryEventKind)
async def test_what_became_of_a_delivery_is_durable(
    database: Database, durable: list[bool], kind: DeliveryEventKind
) -> None:
    """Else a receiver that took it would be called again after a power cut."""
    said = DeliveryEvent(tenant="t", job_id="j", delivery_id="msg_1", kind=kind, at=1.0, number=1, next_at=2.0)
    await SqliteEventLog(database).publish([said])
    assert durable == [True]


async def test_projecting_is_not_durable_of_itself(database: Database, durable: list[bool]) -> None:
    log = SqliteEventLog(database)
    await log.publish([succeeded(1, Payload(media_type=JSON, data=b"1"))])
    await SqliteStore(database).project(await log.read({"log": ""}, 10, 0.0))
    assert durable == [True, False]
