"""What the event log's contract leaves open and Kafka decides: groups, gaps, transactions, brokers that go away."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.cimpl import NewPartitions
from tests.kafka.client import WITHIN_S, admin, create_topics, open_up
from tests.kafka.raw import produce_raw

from dev.kafka.broker import Broker
from forebay.adapters.kafka.attempts import attempt_headers
from forebay.adapters.kafka.event_log import KafkaEventLog, events_partition
from forebay.adapters.kafka.follower import FollowerPlan
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.names import EVENTS_PARTITIONS
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record, to_record
from forebay.adapters.kafka.tracker import Mark
from forebay.core.clocks import ClockLimits
from forebay.core.errors import OutcomeUnknown, Unavailable
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.fact import Fact, JobFact
from forebay.core.foreign import ForeignClocks
from forebay.core.message import Channel
from forebay.core.wire import decode_request, encode_event, encode_request
from forebay.ports.event_log import START, LogBatch
from forebay.testing.samples import TENANT, as_sent, event, job_id, request

CHANNEL = Channel("sample", "normal")
WHOLE = FollowerPlan(whole=True)
CLASSIC = FollowerPlan(group_protocol="classic", session_timeout_s=6.0)
SHARED = [FollowerPlan(), CLASSIC]
READ_S = 1.0

pytestmark = pytest.mark.anyio


class River:
    """Topics of a test's own, a publisher, and any number of logs that follow them."""

    def __init__(self, link: KafkaLink, publisher: Publisher, stack: AsyncExitStack) -> None:
        self.link = link
        self.names = link.names
        self.publisher = publisher
        self._stack = stack

    async def log(self, plan: FollowerPlan | None = WHOLE) -> KafkaEventLog:
        log = KafkaEventLog(self.link, self.publisher, plan)
        await log.open()
        self._stack.push_async_callback(log.close)
        return log

    async def put(self, topic: str, *records: JobRequest | JobEvent, partition: int = 0) -> None:
        """As anybody with a Kafka client might, wherever they like."""
        messages = [encode_event(one) if isinstance(one, JobEvent) else encode_request(one) for one in records]
        await self.publisher.publish(
            [to_record(topic, message, partition=partition) for message in messages], wait_s=WITHIN_S
        )


@pytest.fixture
async def river(kafka: Broker) -> AsyncIterator[River]:
    clocks = ForeignClocks(service=ClockLimits(max_life_s=600.0, retain_s=300.0))
    link = KafkaLink(bootstrap=kafka.bootstrap, prefix=f"t{uuid.uuid4().hex[:12]}", clocks=clocks)
    create_topics(kafka.bootstrap, {link.names.events_topic: EVENTS_PARTITIONS, link.names.requests_topic(CHANNEL): 2})
    async with AsyncExitStack() as stack:
        publisher = Publisher(link, warm_up_s=0.0)
        await open_up(publisher)
        stack.push_async_callback(publisher.close)
        yield River(link, publisher, stack)


class Reader:
    """Follows a log as a projector does, and keeps what it has seen."""

    def __init__(self, log: KafkaEventLog) -> None:
        self.log = log
        self.positions: dict[str, str] = {}
        self.facts: list[JobRequest | JobEvent] = []
        self.malformed = 0

    async def step(self, limit: int = 1000, wait_s: float = READ_S) -> list[LogBatch]:
        after = {source: self.positions.get(source, START) for source in self.log.sources()}
        batches = await self.log.read(after, limit, wait_s)
        for batch in batches:
            assert batch.start == after[batch.source]
            self.positions[batch.source] = batch.end
            self.facts += [as_sent(fact) for fact in batch.facts if isinstance(fact, JobFact)]
            self.malformed += batch.malformed
        return batches

    async def until(self, condition: Callable[[], bool], **how: Any) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await self.step(**how)


async def test_who_may_submit_cannot_say_how_a_job_ended(river: River) -> None:
    await river.put(river.names.requests_topic(CHANNEL), event(1, EventKind.FAILED), request(2))
    await river.put(river.names.events_topic, request(3), event(4, EventKind.STARTED))
    reader = Reader(await river.log())
    await reader.until(lambda: len(reader.facts) + reader.malformed == 4)
    assert sorted(reader.facts, key=lambda fact: fact.job_id) == [request(2), event(4, EventKind.STARTED)]
    assert reader.malformed == 2


async def test_a_foreign_record_is_read_as_the_job_that_a_worker_gets(river: River) -> None:
    topic = river.names.requests_topic(CHANNEL)
    await river.publisher.publish([Record(topic, None, b'{"text":"good"}', partition=0)], wait_s=WITHIN_S)
    log = await river.log()
    reader = Reader(log)
    await reader.until(lambda: bool(reader.facts))
    [fact] = reader.facts
    assert isinstance(fact, JobRequest)
    assert (fact.tenant, fact.model, fact.lane, fact.input.data) == ("default", "sample", "normal", b'{"text":"good"}')
    assert (fact.max_life_s, fact.retain_s) == (600.0, 300.0)
    [found] = await log.at([f"{topic}:0@0"])
    assert found is not None
    assert decode_request(found).retain_s == 300.0


@pytest.mark.parametrize(
    "record",
    [
        (None, b"?", [("forebay-wire", b"1")]),
        (b"\xff", b"?", [("forebay-wire", b"1")]),
        (b"t/job", b"?", [("forebay-wire", b"1"), ("ce_time", b"\xff")]),
        (None, b"?", [("forebay-parameters", b'{"a":' * 50_000)]),
        (None, None, [("content-type", b"application/cloudevents+json")]),
    ],
)
async def test_a_record_that_nobody_can_read_stops_nobody(river: River, record: tuple[Any, Any, Any]) -> None:
    key, value, headers = record
    topic = river.names.requests_topic(CHANNEL)
    await river.publisher.publish([Record(topic, key, value, headers, partition=0)], wait_s=WITHIN_S)
    await river.put(topic, request(1))
    reader = Reader(await river.log())
    await reader.until(lambda: reader.facts == [request(1)])
    assert reader.malformed == 1


async def test_a_record_with_a_header_whose_name_is_no_text_stops_nobody(river: River, kafka: Broker) -> None:
    """On the topics of requests, where anybody may write, and on that of events."""
    requests, events = river.names.requests_topic(CHANNEL), river.names.events_topic
    await river.put(requests, *[request(number) for number in range(50)])
    for topic in (requests, events):
        await asyncio.to_thread(produce_raw, kafka.bootstrap, topic, b"t/job", b"?", [(b"\xff\xfe", b"x")])
    await river.put(requests, request(50))
    await river.put(events, event(1, EventKind.STARTED))
    reader = Reader(await river.log())
    await reader.until(lambda: len(reader.facts) + reader.malformed == 54)
    assert reader.malformed == 2
    assert request(50) in reader.facts
    assert event(1, EventKind.STARTED) in reader.facts


async def test_a_partition_that_somebody_adds_moves_no_job(river: River, kafka: Broker) -> None:
    log, client = await river.log(), admin(kafka.bootstrap)
    await log.publish([event(1, EventKind.STARTED)])
    before = await log.ends()
    topic = river.names.events_topic
    client.create_partitions([NewPartitions(topic, EVENTS_PARTITIONS + 5)])[topic].result(WITHIN_S)
    async with asyncio.timeout(WITHIN_S):
        while f"{topic}:{EVENTS_PARTITIONS + 4}" not in await log.ends():  # until the brokers know it
            pass
    for attempt in range(2, 6):
        await log.publish([event(1, EventKind.STARTED, attempt=attempt)])
    grown = {source for source, end in (await log.ends()).items() if end != before.get(source, "0")}
    assert grown == {f"{topic}:{events_partition(TENANT, job_id(1))}"}


async def test_an_events_partition_is_the_one_that_kafkas_own_clients_would_choose(river: River) -> None:
    log = await river.log()
    for number in range(20):
        before = await log.ends()
        message = encode_event(event(number, EventKind.STARTED))
        await river.publisher.publish([to_record(river.names.events_topic, message)], wait_s=WITHIN_S)
        grown = {source for source, end in (await log.ends()).items() if end != before[source]}
        assert grown == {f"{river.names.events_topic}:{events_partition(TENANT, job_id(number))}"}


async def test_a_position_that_retention_has_overtaken_is_told_once_and_reading_goes_on(
    river: River, kafka: Broker
) -> None:
    topic = river.names.requests_topic(CHANNEL)
    await river.put(topic, *[request(number) for number in range(10)])
    client = admin(kafka.bootstrap)
    for deleted in client.delete_records([TopicPartition(topic, 0, 6)]).values():
        deleted.result(WITHIN_S)
    reader = Reader(await river.log())
    reader.positions[f"{topic}:0"] = "2"
    with structlog.testing.capture_logs() as logs:
        await reader.until(lambda: len(reader.facts) >= 4)
        await river.put(topic, request(10))
        await reader.until(lambda: len(reader.facts) >= 5)
    assert reader.facts == [request(number) for number in range(6, 11)]
    [gap] = [line for line in logs if line["event"] == "event_log.gap"]
    assert (gap["source"], gap["position"]) == (f"{topic}:0", "2")


async def test_from_the_start_what_retention_has_taken_is_no_gap(river: River, kafka: Broker) -> None:
    topic = river.names.requests_topic(CHANNEL)
    await river.put(topic, *[request(number) for number in range(10)])
    client = admin(kafka.bootstrap)
    for deleted in client.delete_records([TopicPartition(topic, 0, 6)]).values():
        deleted.result(WITHIN_S)
    log = await river.log()
    assert sum((await log.behind({})).values()) == 4
    reader = Reader(log)
    with structlog.testing.capture_logs() as logs:
        await reader.until(lambda: len(reader.facts) == 4)
    assert not [line for line in logs if line["event"] == "event_log.gap"]


async def test_the_marks_of_somebodys_transactions_are_passed_over(river: River, kafka: Broker) -> None:
    topic = river.names.requests_topic(CHANNEL)
    client = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": river.link.prefix, "log_level": 0})
    client.init_transactions(WITHIN_S)
    for number, end in ((1, client.commit_transaction), (2, client.abort_transaction), (3, client.commit_transaction)):
        record = to_record(topic, encode_request(request(number)))
        client.begin_transaction()
        client.produce(topic, record.value, record.key, 0, headers=list(record.headers))
        client.flush(WITHIN_S)  # an abort would purge it
        end(WITHIN_S)
    log = await river.log()
    reader = Reader(log)
    await reader.until(lambda: len(reader.facts) == 2 and reader.positions.get(f"{topic}:0") == "6")
    assert reader.facts == [request(1), request(3)]
    assert sum((await log.behind(reader.positions)).values()) == 0


async def test_while_no_broker_answers_it_is_unavailable_and_afterwards_nothing_is_missing(
    river: River, kafka: Broker
) -> None:
    log = await river.log()
    reader = Reader(log)
    await log.publish([event(number, EventKind.STARTED) for number in range(20)])
    await reader.until(lambda: len(reader.facts) == 20)
    kafka.kill()
    with pytest.raises(Unavailable):
        await reader.until(lambda: False)
    for question in (log.ends(), log.behind({})):
        with pytest.raises(Unavailable):
            await question
    await asyncio.to_thread(kafka.start)
    await publish(log, [event(number, EventKind.STARTED) for number in range(20, 40)])
    await patiently(reader, lambda: len({fact.job_id for fact in reader.facts}) == 40)


@pytest.mark.parametrize("plan", SHARED, ids=["consumer", "classic"])
async def test_projectors_share_the_sources_and_one_that_leaves_gives_them_back(
    river: River, plan: FollowerPlan
) -> None:
    whole = await river.log()
    first, second = await river.log(plan), await river.log(plan)
    everything = set(await whole.ends())
    readers = [Reader(first), Reader(second)]

    def shared() -> bool:
        one, other = set(first.sources()), set(second.sources())
        return not one & other and one | other == everything and min(len(one), len(other)) >= 10

    async with asyncio.timeout(WITHIN_S):
        while not shared():
            for reader in readers:
                await reader.step(wait_s=0.0)
    await whole.publish([event(number, EventKind.STARTED) for number in range(100)])
    async with asyncio.timeout(WITHIN_S):
        while len(readers[0].facts) + len(readers[1].facts) < 100:
            for reader in readers:
                await reader.step(wait_s=0.05)
    assert Counter(fact.job_id for reader in readers for fact in reader.facts) == Counter(map(job_id, range(100)))

    await first.close()
    await readers[1].until(lambda: set(second.sources()) == everything, wait_s=0.05)


async def test_topics_of_a_new_model_are_found(river: River, kafka: Broker) -> None:
    log = await river.log(CLASSIC)
    reader = Reader(log)
    await reader.until(lambda: len(log.sources()) == EVENTS_PARTITIONS + 2)
    new = Channel("new", "high")
    create_topics(kafka.bootstrap, {river.names.requests_topic(new): 3})
    await river.put(river.names.requests_topic(new), request(1, model="new"), partition=2)
    await reader.until(lambda: reader.facts == [request(1, model="new")])
    assert len(log.sources()) == EVENTS_PARTITIONS + 5


async def test_events_are_not_held_up_by_a_backlog_of_requests(river: River) -> None:
    topic, requests = river.names.requests_topic(CHANNEL), 0

    async def pile_up() -> None:
        nonlocal requests
        for partition in (0, 1):
            await river.put(topic, *[request(number) for number in range(6000)], partition=partition)
            requests += 6000

    await pile_up()
    log = await river.log()
    await log.publish([event(number, EventKind.STARTED) for number in range(100)])
    reader, events = Reader(log), 0
    async with asyncio.timeout(WITHIN_S):
        while events < 100:
            if requests - (len(reader.facts) - events) < 1000:  # there are always requests left
                await pile_up()
            await reader.step(limit=100)
            events = sum(isinstance(fact, JobEvent) for fact in reader.facts)


async def test_however_often_one_goes_back_each_position_gives_the_same(river: River) -> None:
    log, dice = await river.log(), random.Random(7)
    for _ in range(5):
        await log.publish([event(number, EventKind.STARTED) for number in range(300)])
    there: dict[str, list[Fact]] = {}
    reader = Reader(log)
    while sum(map(len, there.values())) < 1500:
        for batch in await reader.step():
            there.setdefault(batch.source, []).extend(batch.facts)
    again = Reader(log)
    for _ in range(150):
        for source, facts in there.items():
            if dice.random() < 0.1:
                again.positions[source] = str(dice.randrange(len(facts)))
        for batch in await again.step(limit=dice.randrange(1, 200), wait_s=0.0):
            start = int(batch.start or 0)
            assert list(batch.facts) == there[batch.source][start : int(batch.end)]


async def publish(log: KafkaEventLog, events: list[JobEvent]) -> None:
    """Until it is known that it worked."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await log.publish(events)
            except (OutcomeUnknown, Unavailable):
                await asyncio.sleep(0.05)


async def patiently(reader: Reader, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            try:
                await reader.step()
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_what_comes_back_from_a_delay_is_a_copy_of_what_stands_elsewhere(river: River) -> None:
    topic = river.names.requests_topic(CHANNEL)
    copy = to_record(topic, encode_request(request(1)), partition=1, more=attempt_headers(Mark(1, 0)))
    await river.publisher.publish([copy], wait_s=WITHIN_S)
    await river.put(topic, request(1), partition=0)
    log = await river.log()
    batches: list[LogBatch] = []
    async with asyncio.timeout(WITHIN_S):
        while sum(len(batch.facts) for batch in batches) < 2:
            batches += await log.read(dict.fromkeys(log.sources(), START), 9, READ_S)
    places = {fact.place for batch in batches for fact in batch.facts if isinstance(fact, JobRequest)}
    assert places == {"", f"{topic}:0@0"}


async def test_of_a_topic_that_is_gone_nothing_is_read_again(river: River) -> None:
    log = await river.log(None)
    assert await log.at([f"{river.names.requests_topic(Channel('unknown', 'low'))}:0@0"]) == [None]
