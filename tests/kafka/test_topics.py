"""Topics are created, checked and changed on real brokers."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource  # admin does not export these
from confluent_kafka.cimpl import NewPartitions
from tests.kafka.client import WITHIN_S, admin, create_topic

from dev.kafka.broker import Broker
from dev.kafka.ports import HOST, free_port
from forebay.adapters.kafka.layout import Kind, TopicWishes
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.topics import Topics
from forebay.core.errors import Misconfigured, Unavailable
from forebay.ports.queue import Durability

MODEL = "sample"


def link(bootstrap: str) -> KafkaLink:
    return KafkaLink(bootstrap=bootstrap, prefix=f"t{uuid.uuid4().hex[:12]}")


def few(**wishes: Any) -> TopicWishes:
    return TopicWishes(requests_partitions=2, retry_partitions=1, dlq_partitions=1, **wishes)


@pytest.mark.parametrize("kind", ["kafka", "old_kafka"])
def test_what_apply_creates_is_as_planned(kind: str, request: pytest.FixtureRequest) -> None:
    one = link(request.getfixturevalue(kind).bootstrap)
    topics = Topics(one, [MODEL], few())
    planned = topics.plan()
    assert {difference.kind for difference in planned} == {Kind.MISSING}
    assert len(planned) == 3 + 1 + 1 + 3 + 1

    assert topics.apply() == []
    assert topics.plan() == []
    assert topics.apply() == []
    assert topics.check() is Durability.PROCESS


def test_without_its_topics_a_role_is_told_which_are_missing_and_what_to_do(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    with pytest.raises(Misconfigured, match="forebay topics apply") as caught:
        Topics(one, [MODEL], few()).check()
    assert f"{one.names.events_topic}: missing; 32 partitions, 1 copies" in caught.value.mistakes


def test_a_new_model_needs_only_its_own_topics(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    Topics(one, [MODEL], few()).apply()
    assert {difference.topic for difference in Topics(one, [MODEL, "second"], few()).plan()} == {
        f"{one.prefix}.requests.second.{lane}" for lane in ("high", "normal", "low")
    }


def test_what_was_changed_by_hand_is_found_and_set_right(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    topics = Topics(one, [MODEL], few())
    topics.apply()
    set_config(kafka, one.names.events_topic, "retention.ms", "1000")

    [difference] = topics.plan()
    assert (difference.topic, difference.kind) == (one.names.events_topic, Kind.CONFIG)
    assert difference.text == "retention.ms is 1000, should be 734400000"
    assert topics.check() is Durability.PROCESS  # told, and no reason to stand still
    assert topics.apply() == []


def test_what_somebody_raised_is_left_alone(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    topics = Topics(one, [MODEL], few())
    topics.apply()
    set_config(kafka, one.names.events_topic, "retention.ms", "-1")
    set_config(kafka, one.names.events_topic, "compression.type", "gzip")
    assert topics.apply() == []
    resource = ConfigResource(ConfigResource.Type.TOPIC, one.names.events_topic)
    client = admin(kafka.bootstrap)
    config = client.describe_configs([resource])[resource].result(WITHIN_S)
    assert (config["retention.ms"].value, config["compression.type"].value) == ("-1", "producer")


def test_requests_may_grow(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    Topics(one, [MODEL], few()).apply()
    more = Topics(one, [MODEL], TopicWishes(requests_partitions=3, retry_partitions=1, dlq_partitions=1))
    assert {difference.text for difference in more.plan()} == {"has 2 partitions, should have 3"}
    assert more.apply() == []


def test_who_applies_at_the_same_time_and_is_slower_finds_it_done(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    slower = AfterAnother(one, few())
    assert slower.apply() == []
    more = AfterAnother(one, TopicWishes(requests_partitions=3, retry_partitions=1, dlq_partitions=1))
    assert more.apply() == []
    assert more.raced == slower.raced == 1


class AfterAnother(Topics):
    """Has looked when another applies the same."""

    def __init__(self, one: KafkaLink, wishes: TopicWishes) -> None:
        super().__init__(one, [MODEL], wishes)
        self._another = Topics(one, [MODEL], wishes)
        self.raced = 0

    def _look(self) -> Any:
        look = super()._look()
        if not self.raced:
            self.raced = 1
            assert self._another.apply() == []
        return look


def test_too_few_partitions_of_events_stop_a_role(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    create_topic(kafka.bootstrap, name=one.names.events_topic, partitions=4)
    topics = Topics(one, [MODEL], few())
    with pytest.raises(Misconfigured) as caught:
        topics.check()
    assert f"{one.names.events_topic}: has 4 partitions, should have 32" in caught.value.mistakes
    assert topics.apply() == []


def test_partitions_of_events_that_somebody_added_change_nothing(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    topics = Topics(one, [MODEL], few())
    topics.apply()
    client = admin(kafka.bootstrap)
    client.create_partitions([NewPartitions(one.names.events_topic, 33)])[one.names.events_topic].result(WITHIN_S)
    assert topics.plan() == []


@pytest.mark.parametrize("weakest", [f"requests.{MODEL}.low", "events", "retry.30s"])
def test_a_broker_that_flushes_each_record_wherever_a_job_may_be(kafka: Broker, weakest: str) -> None:
    one = link(kafka.bootstrap)
    topics = Topics(one, [MODEL], few(flush_each=True))
    topics.apply()
    assert topics.check() is Durability.FLUSHED
    set_config(kafka, f"{one.prefix}.{weakest}", "flush.messages", "1000")
    assert topics.check() is Durability.PROCESS


def test_copies_that_the_cluster_cannot_hold_are_refused_by_name(kafka: Broker) -> None:
    one = link(kafka.bootstrap)
    with pytest.raises(Misconfigured, match="refuses to change topics") as caught:
        Topics(one, [MODEL], few(replication=3)).apply()
    assert any(mistake.startswith(f"{one.names.events_topic}: ") for mistake in caught.value.mistakes)


def test_without_a_broker_it_is_unavailable() -> None:
    topics = Topics(link(f"{HOST}:{free_port()}"), [MODEL], few(), timeout_s=0.2)
    for question in (topics.plan, topics.apply, topics.check):
        with pytest.raises(Unavailable, match="topics cannot be looked at"):
            question()


def set_config(broker: Broker, topic: str, key: str, value: str) -> None:
    """Returns when the broker shows it: the controller confirms before that."""
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    client = admin(broker.bootstrap)
    for changed in client.incremental_alter_configs([resource]).values():
        changed.result(WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    asked = ConfigResource(ConfigResource.Type.TOPIC, topic)
    while client.describe_configs([asked])[asked].result(WITHIN_S)[key].value != value:
        assert time.monotonic() < deadline
