"""A row of the log that nobody can read costs only itself, and its job comes to an end."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import pytest
from structlog.testing import capture_logs

from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue
from forebay.core.errors import InvalidRequest
from forebay.core.event import JobRequest
from forebay.core.message import Channel
from forebay.core.wire import decode_request
from forebay.ports.event_log import START
from forebay.testing.samples import TENANT, job_id, message

CHANNEL = Channel("sample", "normal")
NO_HEADERS = [b"", b"{", b"[]", b'"text"', b'{"a":1}', b'{"a":"\xff"}', b"[" * 10_000]


def spoil(connection: apsw.Connection, calls: Sequence[bytes]) -> list[None]:
    for headers in calls:
        connection.execute("UPDATE log SET headers = ? WHERE job_id = ?", (headers, job_id(2)))
    return [None] * len(calls)


@pytest.fixture(params=NO_HEADERS, ids=[headers[:10].decode("latin-1") for headers in NO_HEADERS])
async def spoilt(database: Database, request: pytest.FixtureRequest) -> Database:
    """Of three requests the second has headers that are no JSON object of strings."""
    await SqliteQueue(database).publish(CHANNEL, [message(1), message(2), message(3)])
    await database.write(spoil, request.param, durable=True)
    return database


async def test_the_event_log_counts_and_skips_it(spoilt: Database) -> None:
    (batch,) = await SqliteEventLog(spoilt).read({"log": START}, 10, 0.0)
    assert [fact.job_id for fact in batch.facts if isinstance(fact, JobRequest)] == [job_id(1), job_id(3)]
    assert (batch.end, batch.malformed) == ("3", 1)


async def test_the_queue_hands_it_out_to_be_ended(spoilt: Database) -> None:
    queue = SqliteQueue(spoilt)
    consumer = queue.consumer(CHANNEL)
    with capture_logs() as logs:
        received = await consumer.receive(10, 0.0)
    assert [one.message.job_id for one in received] == [job_id(1), job_id(2), job_id(3)]
    assert [(one["event"], one["job"]) for one in logs] == [("queue.malformed", job_id(2))]
    assert (received[1].message.tenant, received[1].message.headers) == (TENANT, {})
    with pytest.raises(InvalidRequest):
        decode_request(received[1].message)
    await consumer.ack(received)
    assert await queue.depth(CHANNEL) == 0


async def test_it_is_forgotten_like_any_other(spoilt: Database) -> None:
    queue = SqliteQueue(spoilt)
    await queue.forget([(TENANT, job_id(n)) for n in (1, 2)])
    assert spoilt.read("SELECT job_id FROM log") == [(job_id(3),)]
