"""Three brokers, every partition in three copies of which two must be in sync: all that needs them, since four
processes take long to start."""

from __future__ import annotations

import sys
import time
import uuid

import pytest
from confluent_kafka.admin._metadata import PartitionMetadata  # admin hands it on without exporting it
from msgspec.structs import replace
from tests.kafka.client import WITHIN_S, admin, create_topic, produce
from tests.kafka.trust import LOOPBACK, VALUES, arrives_with_its_headers, listening_addresses

from dev.kafka.broker import Cluster
from forebay.adapters.kafka.layout import Kind, TopicWishes
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.topics import Topics
from forebay.ports.queue import Durability

FEW = TopicWishes(requests_partitions=2, retry_partitions=1, dlq_partitions=1)
FEW_AND_ONE_COPY = replace(FEW, replication=1)
POLL_S = 0.05

pytestmark = pytest.mark.slow


def test_what_a_producer_sends_a_group_receives_with_its_headers(kafka_cluster: Cluster) -> None:
    arrives_with_its_headers(kafka_cluster.bootstrap, "consumer")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_this_machine_can_connect(kafka_cluster: Cluster) -> None:
    for server in [*kafka_cluster.brokers, kafka_cluster.controller]:
        assert listening_addresses(server.pid) == LOOPBACK


def test_on_three_brokers_records_are_replicated(kafka_cluster: Cluster) -> None:
    one = KafkaLink(bootstrap=kafka_cluster.bootstrap, prefix=f"t{uuid.uuid4().hex[:12]}")
    topics = Topics(one, ["sample"], FEW)
    assert topics.apply() == []
    assert topics.check() is Durability.REPLICATED

    single = KafkaLink(bootstrap=kafka_cluster.bootstrap, prefix=one.prefix + "-single")
    Topics(single, ["sample"], FEW_AND_ONE_COPY).apply()
    topics = Topics(single, ["sample"], FEW)
    left = [difference for difference in topics.apply() if difference.kind is Kind.REPLICATION]
    assert left
    assert all("kafka-reassign-partitions.sh" in difference.text for difference in left)
    assert topics.check() is Durability.PROCESS


def test_it_goes_on_accepting_without_one_broker_and_refuses_without_two(kafka_cluster: Cluster) -> None:
    topic = create_topic(kafka_cluster.bootstrap, copies=3, settings={"min.insync.replicas": "2"})
    assert produce(kafka_cluster.bootstrap, topic, VALUES) == [None] * len(VALUES)

    kafka_cluster.broker(leader(kafka_cluster, topic)).kill()
    assert produce(kafka_cluster.bootstrap, topic, VALUES) == [None] * len(VALUES)

    leading = leader(kafka_cluster, topic)
    next(broker for broker in kafka_cluster.brokers if not broker.gone and broker.node_id != leading).kill()
    wait_until_in_sync(kafka_cluster, topic, 1)
    [outcome] = produce(kafka_cluster.bootstrap, topic, [b"refused"], retries=0)
    assert outcome is not None
    assert outcome.name() in ("NOT_ENOUGH_REPLICAS", "REQUEST_TIMED_OUT")  # the latter if it notices while it waits

    kafka_cluster.start()
    wait_until_in_sync(kafka_cluster, topic, 3)
    assert produce(kafka_cluster.bootstrap, topic, VALUES) == [None] * len(VALUES)


def leader(cluster: Cluster, topic: str) -> int:
    return partition(cluster, topic).leader


def partition(cluster: Cluster, topic: str) -> PartitionMetadata:
    return admin(cluster.bootstrap).list_topics(topic, timeout=WITHIN_S).topics[topic].partitions[0]


def wait_until_in_sync(cluster: Cluster, topic: str, copies: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while len(partition(cluster, topic).isrs) != copies:
        assert time.monotonic() < deadline, f"not {copies} in sync within {WITHIN_S:g} s"
        time.sleep(POLL_S)
