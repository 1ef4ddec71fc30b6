"""With the ACLs that we generate each role can do its work on a real broker, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource  # admin does not export these
from confluent_kafka.cimpl import NewPartitions, NewTopic
from tests.kafka.client import POLL_S, WITHIN_S
from tests.kafka.test_security import publisher_of, with_password

from dev.kafka.secure import SecureBroker
from forebay.adapters.kafka.acls import Acl, Role, acls
from forebay.adapters.kafka.cancellations import KafkaCancellations
from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.event_log import KafkaEventLog
from forebay.adapters.kafka.fleet import KafkaFleet
from forebay.adapters.kafka.follower import FollowerPlan
from forebay.adapters.kafka.layout import TopicWishes
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.probe import probe
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.adapters.kafka.records import Record
from forebay.adapters.kafka.topics import Topics
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobError, JobEvent, JobRequest
from forebay.core.fact import Fact
from forebay.core.message import Channel, ReceivedMessage
from forebay.core.model import ModelStatus
from forebay.ports.fleet import ModelReport
from forebay.ports.queue import Durability
from forebay.testing.cancellations_contract import hears
from forebay.testing.samples import event, job_id, message

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MODEL = "sample"
CHANNEL = Channel(MODEL, "normal")
WISHES = TopicWishes(requests_partitions=2, retry_partitions=1, dlq_partitions=1)
TIERS = {"5s": 0.1}
REPORT = ModelReport(worker="w-1", model=MODEL, version="1", status=ModelStatus.READY, replicas_ready=1)
FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}


class Realm:
    """Topics under a prefix of a test's own, and a user for each role with just the role's ACLs."""

    def __init__(self, broker: SecureBroker) -> None:
        self._broker = broker
        self.superuser = with_password(broker)
        self.names = self.superuser.names

    def found(self) -> None:
        Topics(self.superuser, [MODEL], WISHES).apply()
        bindings = []
        for role in Role:
            self._broker.add_user(self.user(role), self.user(role))
            for acl in acls(role, self.names, [MODEL]):
                bindings += acl.bindings(f"User:{self.user(role)}")
        self._broker.allow(bindings)

    def user(self, role: Role) -> str:
        return f"{self.names.prefix}-{role.value}"

    def link(self, role: Role) -> KafkaLink:
        user = self.user(role)
        secured = with_password(self._broker, "SCRAM-SHA-512", username=user, password=user)
        return KafkaLink(bootstrap=secured.bootstrap, prefix=self.names.prefix, security=secured.security)


@pytest.fixture
def realm(secure_kafka: SecureBroker) -> Realm:
    realm = Realm(secure_kafka)
    realm.found()
    return realm


class Player:
    """The adapters of one role, as its own user."""

    def __init__(self, link: KafkaLink, publisher: Any, plan: FollowerPlan | None, role: Role) -> None:
        self.link = link
        self.queue = KafkaQueue(
            link, publisher, durability=Durability.PROCESS, session_timeout_s=6.0, tiers=TIERS, publish_wait_s=WITHIN_S
        )
        self.log = KafkaEventLog(link, publisher, plan)
        self.ear = ControlEar(link)
        self.fleet = KafkaFleet(link, publisher, self.ear if role is Role.API else None)
        self.cancellations = KafkaCancellations(link, publisher, self.ear if role is Role.WORKER else None)


@contextlib.asynccontextmanager
async def player(realm: Realm, role: Role) -> AsyncIterator[Player]:
    link = realm.link(role)
    plan = FollowerPlan() if role is Role.PROJECTOR else None
    assert (await asyncio.to_thread(probe, link)).consumer_protocol
    assert await asyncio.to_thread(Topics(link, [MODEL], WISHES).check) is Durability.PROCESS
    async with publisher_of(link) as publisher:
        one = Player(link, publisher, plan, role)
        await one.log.open()
        await one.fleet.open()
        one.ear.open()
        try:
            yield one
        finally:
            await one.ear.close()
            await one.fleet.close()
            await one.log.close()
            await one.queue.close()


async def received(consumer: Any, count: int) -> list[ReceivedMessage]:
    found: list[ReceivedMessage] = []
    async with asyncio.timeout(WITHIN_S):
        while len(found) < count:
            found += await consumer.receive(count - len(found), 1.0)
    return found


async def test_each_role_as_its_own_user_does_its_part_of_a_jobs_life(realm: Realm) -> None:
    async with player(realm, Role.API) as api:
        await api.queue.publish(CHANNEL, [message(number) for number in range(3)])
        assert await api.queue.depth(CHANNEL) == 3
        assert sum((await api.log.behind({})).values()) == 3
        found = await api.log.at([f"{realm.names.requests_topic(CHANNEL)}:{partition}@0" for partition in range(2)])
        assert any(one in [message(number) for number in range(3)] for one in found)
        await work_and_bring_back(realm, api)
    await everything_is_read(realm)


async def work_and_bring_back(realm: Realm, api: Player) -> None:
    async with player(realm, Role.WORKER) as worker, player(realm, Role.SCHEDULER) as scheduler:
        await worker.fleet.report(REPORT)
        async with asyncio.timeout(WITHIN_S):
            while list(await api.fleet.reports()) != [REPORT]:  # noqa: ASYNC110 - heard in a thread of the fleet's
                await asyncio.sleep(0.01)
        await api.log.publish([event(7, EventKind.CANCELED, attempt=0)])
        await api.cancellations.announce("acme", job_id(7))
        await hears(worker.cancellations, ("acme", job_id(7)))
        consumer = worker.queue.consumer(CHANNEL)
        first, second, third = await received(consumer, 3)
        await consumer.begin([first, second, third])
        await worker.log.publish([event(0, EventKind.STARTED)])
        await consumer.ack([first])
        await consumer.reject([second], JobError(code="model_failed", message="no"))
        await consumer.nack([third], 0.1)
        forwarding = asyncio.create_task(scheduler.queue.forward_delayed())
        try:
            [back] = await received(consumer, 1)
        finally:
            forwarding.cancel()
            await asyncio.wait({forwarding})
        assert (back.message, back.attempt) == (third.message, 1)
        await scheduler.log.publish([event(8, EventKind.EXPIRED, attempt=0)])
        await consumer.ack([back])
        await consumer.close()


async def everything_is_read(realm: Realm) -> None:
    facts: list[Fact] = []
    async with player(realm, Role.PROJECTOR) as projector:
        positions: dict[str, str] = {}
        async with asyncio.timeout(WITHIN_S):
            while sum((await projector.log.behind(positions)).values()):
                after = {source: positions.get(source, "") for source in projector.log.sources()}
                for batch in await projector.log.read(after, 100, 0.2):
                    positions[batch.source] = batch.end
                    facts += batch.facts
    assert {fact.job_id for fact in facts if isinstance(fact, JobRequest)} == {job_id(n) for n in range(3)}
    assert {(fact.job_id, fact.kind) for fact in facts if isinstance(fact, JobEvent)} == {
        (job_id(0), EventKind.STARTED),
        (job_id(7), EventKind.CANCELED),
        (job_id(8), EventKind.EXPIRED),
    }


def test_the_admin_creates_and_changes_topics(realm: Realm) -> None:
    more = TopicWishes(requests_partitions=3, retry_partitions=1, dlq_partitions=1, retention_s=3600.0)
    topics = Topics(realm.link(Role.ADMIN), [MODEL, "second"], more)
    assert topics.plan()
    assert topics.apply() == []


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
def test_nobody_else_changes_topics(realm: Realm, role: Role) -> None:
    topics = Topics(realm.link(role), [MODEL], WISHES)
    client, topic = realm.link(role).admin(), realm.names.requests_topic(CHANNEL)
    assert not allowed(client.create_topics([NewTopic(f"{topic}2", 1, 1)], validate_only=True))
    assert not allowed(client.create_partitions([NewPartitions(topic, 9)], validate_only=True))
    assert not allowed(client.delete_topics([topic]))
    entry = ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    assert not allowed(client.incremental_alter_configs([resource], validate_only=True))
    assert [one for one in topics.plan() if one.topic == topic] == []


async def test_who_may_write_nothing_can_try_and_does_so_once_allowed(realm: Realm) -> None:
    """The one way to make a real producer fail for good, and to see that it is replaced."""
    topic = realm.names.control_topic
    record = Record(topic, b"fleet/w/m/1", b"{}")
    async with publisher_of(realm.link(Role.PROJECTOR)) as publisher:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await publisher.publish([record], wait_s=WITHIN_S)
        assert publisher.up
        writing = Acl("topic", topic, ("Write",), "tries")
        client = realm.superuser.admin()  # kept until the answer is there: its end is the end of its requests
        for done in client.create_acls(writing.bindings(f"User:{realm.user(Role.PROJECTOR)}")).values():
            done.result(WITHIN_S)
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(Unavailable):  # the right is not known everywhere yet
                    await publisher.publish([record], wait_s=WITHIN_S)
                    break
                await asyncio.sleep(0.01)


def test_not_even_the_admin_deletes_a_topic(realm: Realm) -> None:
    client = realm.link(Role.ADMIN).admin()
    assert not allowed(client.delete_topics([realm.names.dlq_topic]))


READS = {
    Role.API: {"requests", "control"},
    Role.WORKER: {"requests", "control"},
    Role.PROJECTOR: {"requests", "events"},
    Role.SCHEDULER: {"retry"},
    Role.WEBHOOKS: set(),
    Role.ADMIN: set(),
}
WRITES = {
    Role.API: {"requests", "events", "control"},
    Role.WORKER: {"events", "control", "retry", "dlq"},
    Role.PROJECTOR: set(),
    Role.SCHEDULER: {"requests", "events", "control", "dlq"},
    Role.WEBHOOKS: {"events", "control"},
    Role.ADMIN: set(),
}
JOINS = {
    Role.API: set(),
    Role.WORKER: {"worker"},
    Role.PROJECTOR: {"projector"},
    Role.SCHEDULER: {"scheduler"},
    Role.WEBHOOKS: set(),
    Role.ADMIN: set(),
}


@pytest.mark.parametrize("role", Role)
def test_a_role_reads_writes_and_joins_what_is_its_own_only(realm: Realm, role: Role) -> None:
    names, link = realm.names, realm.link(role)
    topics = {
        "requests": names.requests_topic(CHANNEL),
        "events": names.events_topic,
        "control": names.control_topic,
        "retry": names.retry_topics[0],
        "dlq": names.dlq_topic,
    }
    groups = {
        "worker": names.worker_group(CHANNEL),
        "projector": names.projector_group,
        "scheduler": names.scheduler_group,
        "another prefix": "somebody",
    }
    fill(realm.superuser, list(topics.values()))
    assert {name for name, topic in topics.items() if may_read(link, topic)} == READS[role]
    assert {name for name, topic in topics.items() if may_write(link, topic)} == WRITES[role]
    assert {name for name, group in groups.items() if may_join(link, group)} == JOINS[role]


def fill(link: KafkaLink, topics: Sequence[str]) -> None:
    producer = Producer({**link.config(), "acks": "all"})
    outcomes: list[KafkaError | None] = []
    for topic in topics:
        producer.produce(topic, b"value", b"t/key", 0, on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(WITHIN_S) == 0
    assert outcomes == [None] * len(topics)


def may_write(link: KafkaLink, topic: str) -> bool:
    producer = Producer({**link.config(), "acks": "all"})
    outcomes: list[KafkaError | None] = []
    producer.produce(topic, b"value", b"t/key", 0, on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(WITHIN_S) == 0
    [error] = outcomes
    return error is None or not forbidden(error)


def may_read(link: KafkaLink, topic: str) -> bool:
    consumer = Consumer(link.config(**{"group.id": link.names.control_group, "enable.auto.commit": False}))
    try:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        for _ in range(int(WITHIN_S / POLL_S)):
            record = consumer.poll(POLL_S)
            if record is None:
                continue
            error = record.error()
            if error is None:
                return True
            # Of the group nothing is asked here, and a client looks for its coordinator all the same.
            if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                return not forbidden(error)
    finally:
        consumer.close()
    raise AssertionError(f"neither a record of {topic} nor a refusal within {WITHIN_S:g} s")


def may_join(link: KafkaLink, group: str) -> bool:
    joined: list[bool] = []
    consumer = Consumer(link.config(**{"group.id": group, "enable.auto.commit": False}))
    try:
        consumer.subscribe([link.names.events_topic], on_assign=lambda *_: joined.append(True))
        for _ in range(int(WITHIN_S / POLL_S)):
            record = consumer.poll(POLL_S)
            if joined:
                return True
            if record is not None and (error := record.error()) is not None:
                return not forbidden(error)
    finally:
        consumer.close()
    raise AssertionError(f"neither a member of {group} nor a refusal within {WITHIN_S:g} s")


def allowed(futures: dict[Any, Any]) -> bool:
    try:
        for future in futures.values():
            future.result(WITHIN_S)
    except KafkaException as exc:
        return not forbidden(exc.args[0])
    return True


def forbidden(error: KafkaError) -> bool:
    """Any other error would say nothing about rights."""
    assert error.code() in FORBIDDEN, f"{error.name()}: {error.str()}"
    return True
