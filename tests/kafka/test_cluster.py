"""Three brokers, every partition in three copies of which two must be in sync."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin._metadata import PartitionMetadata  # admin hands it on without exporting it
from tests.kafka.client import WITHIN_S, admin, create_topic, produce

from dev.kafka.broker import Cluster

VALUES = [str(number).encode() for number in range(50)]
POLL_S = 0.05

pytestmark = pytest.mark.slow


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
