"""The promises of `ports.event_log`, as tests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest

from forebay.core.delivery import DeliveryEvent, DeliveryEventKind
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.fact import Event, Fact, JobFact
from forebay.core.message import Channel, Message
from forebay.core.payload import Payload
from forebay.core.wire import encode_request
from forebay.ports.event_log import START, EventLog, LogBatch
from forebay.ports.queue import Queue
from forebay.testing.samples import TENANT, as_sent, event, failed, job_id, request, succeeded

CHANNEL = Channel("sample", "normal")
LONG_S = 30.0
NEARLY_S = 0.25
"""Clocks of two brokers, or of one told in whole milliseconds."""


class EventLogPlace(ABC):
    """Where a queue and its event log live. `one_order`: requests and events share a source."""

    survives_restart: bool
    one_order: bool = True

    @abstractmethod
    async def open(self) -> tuple[Queue, EventLog]: ...

    @abstractmethod
    async def close(self, queue: Queue, log: EventLog) -> None: ...


Positions = dict[str, str]


class LogReader:
    """Reads all sources of a log, and leaves out when the log took what."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.positions: Positions = {}
        self.malformed = 0
        self.places: dict[str, str] = {}  # of the requests among the facts, by job

    async def facts(self, count: int, limit: int = 100) -> list[Fact]:
        """The next `count` facts; those that cannot be read count as well."""
        facts: list[Fact] = []
        wanted = count + self.malformed
        async with asyncio.timeout(LONG_S):
            while len(facts) + self.malformed < wanted:
                for batch in await self.batches(limit, LONG_S):
                    facts += map(as_sent, batch.facts)
                    self.places |= {fact.job_id: fact.place for fact in batch.facts if isinstance(fact, JobRequest)}
                    self.malformed += batch.malformed
        return facts

    async def batches(self, limit: int, wait_s: float) -> list[LogBatch]:
        """One read from where the last one ended."""
        for source in self.log.sources():
            self.positions.setdefault(source, START)
        mine = {source: self.positions[source] for source in self.log.sources()}
        batches = await self.log.read(mine, limit, wait_s)
        assert len({batch.source for batch in batches}) == len(batches)
        for batch in batches:
            assert batch.start == self.positions[batch.source]
            assert batch.end != batch.start
            self.positions[batch.source] = batch.end
        return batches


@pytest.mark.anyio
class EventLogContract:
    @pytest.fixture
    def place(self) -> EventLogPlace:
        raise NotImplementedError("say where the queue and its event log live")

    @pytest.fixture
    async def both(self, place: EventLogPlace) -> AsyncIterator[tuple[Queue, EventLog]]:
        queue, log = await place.open()
        yield queue, log
        await place.close(queue, log)

    @pytest.fixture
    def queue(self, both: tuple[Queue, EventLog]) -> Queue:
        return both[0]

    @pytest.fixture
    def log(self, both: tuple[Queue, EventLog]) -> EventLog:
        return both[1]

    async def test_events_are_read_as_they_were_published(self, log: EventLog) -> None:
        events: list[Event] = [
            event(1, EventKind.STARTED),
            succeeded(1, Payload(media_type="image/png", data=bytes(range(256)))),
            failed(2, attempt=3),
            event(3, EventKind.CANCELED, attempt=0),
            DeliveryEvent(
                tenant=TENANT,
                job_id=job_id(2),
                delivery_id="msg_1",
                kind=DeliveryEventKind.TRIED,
                at=1.5,
                number=1,
                next_at=9.0,
            ),
        ]
        await log.publish(events)
        facts = await LogReader(log).facts(5)
        assert sorted(facts, key=events.index) == events  # type: ignore[arg-type]  # a fact that is no event fails

    async def test_the_log_notes_its_own_time_of_what_it_takes(self, queue: Queue, log: EventLog) -> None:
        before = await log.now()
        await queue.publish(CHANNEL, [encode_request(request(1))])
        await log.publish([event(1, EventKind.STARTED)])
        reader, facts = LogReader(log), list[JobRequest | JobEvent]()
        while len(facts) < 2:
            found = [fact for batch in await reader.batches(100, LONG_S) for fact in batch.facts]
            facts += [fact for fact in found if isinstance(fact, JobFact)]
        after = await log.now()
        assert all(before - NEARLY_S <= fact.logged_at <= after + NEARLY_S for fact in facts)
        (received,) = await queue.consumer(CHANNEL).receive(1, LONG_S)
        assert received.logged_at == next(fact.logged_at for fact in facts if isinstance(fact, JobRequest))

    async def test_facts_of_one_job_keep_their_order(self, log: EventLog) -> None:
        events = [event(1, EventKind.STARTED, attempt=attempt) for attempt in range(1, 8)]
        for one in events:
            await log.publish([one])
        assert await LogReader(log).facts(7) == events

    async def test_a_request_comes_before_any_event_about_it_where_they_share_a_source(
        self, queue: Queue, log: EventLog, place: EventLogPlace
    ) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [encode_request(request(1))])
        (received,) = await consumer.receive(1, LONG_S)
        await log.publish([event(1, EventKind.STARTED)])
        await consumer.ack([received])
        facts, expected = await LogReader(log).facts(2), [request(1), event(1, EventKind.STARTED)]
        assert facts in ([expected] if place.one_order else [expected, expected[::-1]])

    async def test_a_request_stays_in_the_log_after_it_was_acknowledged(self, queue: Queue, log: EventLog) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [encode_request(request(1))])
        await consumer.ack(await consumer.receive(1, LONG_S))
        assert await LogReader(log).facts(1) == [request(1)]

    @pytest.mark.parametrize("limit", [1, 3, 100])
    async def test_batches_follow_each_other_without_gap_or_overlap(self, log: EventLog, limit: int) -> None:
        events = [event(n, EventKind.STARTED) for n in range(20)]
        await log.publish(events)
        facts = await LogReader(log).facts(20, limit)
        assert sorted(fact.job_id for fact in facts if isinstance(fact, JobEvent)) == [job_id(n) for n in range(20)]

    async def test_no_batch_is_longer_than_the_limit(self, log: EventLog) -> None:
        await log.publish([event(n, EventKind.STARTED) for n in range(20)])
        reader, read = LogReader(log), 0
        async with asyncio.timeout(LONG_S):
            while read < 20:
                facts = sum(len(batch.facts) for batch in await reader.batches(3, LONG_S))
                assert facts <= 3
                read += facts

    async def test_reading_again_from_a_position_gives_the_same(self, log: EventLog) -> None:
        await log.publish([event(n, EventKind.STARTED) for n in range(10)])
        reader = LogReader(log)
        await reader.facts(5, limit=1)
        positions = dict(reader.positions)
        rest = await reader.facts(5, limit=1)
        again = LogReader(log)
        again.positions = positions
        assert sorted(await again.facts(5), key=str) == sorted(rest, key=str)

    @pytest.mark.parametrize("wait_s", [0.0, 0.01])
    async def test_reading_at_the_end_gives_nothing(self, log: EventLog, wait_s: float) -> None:
        await log.publish([event(1, EventKind.STARTED)])
        reader = LogReader(log)
        await reader.facts(1)
        assert await reader.batches(10, wait_s) == []

    async def test_ends_are_where_everything_has_been_read(self, queue: Queue, log: EventLog) -> None:
        before = await log.ends()
        assert sum((await log.behind({})).values()) == 0
        await queue.publish(CHANNEL, [encode_request(request(n)) for n in range(3)])
        await log.publish([event(n, EventKind.STARTED) for n in range(3)])
        assert sum((await log.behind({})).values()) == 6
        assert sum((await log.behind(before)).values()) == 6
        ends = await log.ends()
        assert sum((await log.behind(ends)).values()) == 0
        reader = LogReader(log)
        await reader.facts(6)
        assert {source: ends[source] for source in reader.positions if reader.positions[source] != START} == {
            source: position for source, position in reader.positions.items() if position != START
        }

    async def test_behind_says_how_many_records_follow_a_position(self, log: EventLog) -> None:
        await log.publish([event(n, EventKind.STARTED) for n in range(10)])
        reader = LogReader(log)
        read = 0
        while read < 10:
            read += sum(len(batch.facts) for batch in await reader.batches(1, LONG_S))
            assert sum((await log.behind(reader.positions)).values()) == 10 - read

    async def test_a_waiting_read_wakes_up_for_a_request_and_for_an_event(self, queue: Queue, log: EventLog) -> None:
        reader = LogReader(log)
        for publish, fact in (
            (queue.publish(CHANNEL, [encode_request(request(1))]), request(1)),
            (log.publish([event(2, EventKind.STARTED)]), event(2, EventKind.STARTED)),
        ):
            waiting = asyncio.create_task(reader.facts(1))
            for _ in range(20):  # until it waits
                await asyncio.sleep(0)
            await publish
            async with asyncio.timeout(LONG_S / 2):
                assert await waiting == [fact]

    async def test_what_nobody_can_read_is_counted_and_passed_over(self, queue: Queue, log: EventLog) -> None:
        broken = Message(tenant="default", job_id=job_id(1), headers={"forebay-wire": "99"}, value=b"?")
        await queue.publish(CHANNEL, [broken, encode_request(request(2))])
        reader = LogReader(log)
        assert await reader.facts(2) == [request(2)]
        assert reader.malformed == 1

    async def test_what_was_accepted_is_read_again_where_it_stands(self, queue: Queue, log: EventLog) -> None:
        sent = [encode_request(request(n)) for n in range(3)]
        await queue.publish(CHANNEL, sent)
        await log.publish([event(n, EventKind.STARTED) for n in range(3)])
        reader = LogReader(log)
        await reader.facts(6)
        assert await log.at([reader.places[job_id(n)] for n in (2, 0)]) == [sent[2], sent[0]]
        assert await log.at([]) == []

    async def test_where_nothing_stands_nothing_is_read(self, queue: Queue, log: EventLog) -> None:
        await queue.publish(CHANNEL, [encode_request(request(1))])
        reader = LogReader(log)
        await reader.facts(1)
        place = reader.places[job_id(1)]
        assert [one and one.job_id for one in await log.at([f"{place}999", place])] == [None, job_id(1)]

    async def test_large_values_are_all_read(self, queue: Queue, log: EventLog) -> None:
        large = [request(n, data=b"x" * 250_000) for n in range(30)]
        await queue.publish(CHANNEL, [encode_request(one) for one in large])
        facts = await LogReader(log).facts(30)
        assert sorted(fact.job_id for fact in facts if isinstance(fact, JobRequest)) == [one.job_id for one in large]

    async def test_the_log_is_there_after_a_restart(self, place: EventLogPlace) -> None:
        queue, log = await place.open()
        await queue.publish(CHANNEL, [encode_request(request(1))])
        await log.publish([event(1, EventKind.STARTED)])
        reader = LogReader(log)
        before = await reader.facts(1, limit=1)
        await place.close(queue, log)
        queue, log = await place.open()
        if place.survives_restart:
            again = LogReader(log)
            again.positions = reader.positions
            after = await again.facts(1)
            assert sorted([*before, *after], key=str) == sorted([request(1), event(1, EventKind.STARTED)], key=str)
        else:
            assert await log.read(dict.fromkeys(log.sources(), START), 1, 0.0) == []
        await place.close(queue, log)
