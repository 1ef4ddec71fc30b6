"""The brokers of dev/kafka are real ones, and do what the tests built on them take for granted."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.kafka.client import admin, consume, create_topic, produce
from tests.kafka.trust import LOOPBACK, VALUES, arrives_with_its_headers, listening_addresses

from dev.kafka.broker import Broker
from dev.kafka.install import KAFKA
from dev.kafka.java_process import BrokerFailed

# The old broker knows the classic protocol only.
KINDS = [("kafka", "consumer"), ("kafka", "classic"), ("old_kafka", "classic")]


@pytest.mark.parametrize(("kind", "group_protocol"), KINDS)
def test_what_a_producer_sends_a_group_receives_with_its_headers(
    kind: str, group_protocol: str, request: pytest.FixtureRequest
) -> None:
    bootstrap: str = request.getfixturevalue(kind).bootstrap
    arrives_with_its_headers(bootstrap, group_protocol)


@pytest.mark.parametrize("kind", ["kafka", "old_kafka"])
def test_what_was_accepted_is_there_after_a_kill(kind: str, request: pytest.FixtureRequest) -> None:
    broker: Any = request.getfixturevalue(kind)
    topic = create_topic(broker.bootstrap)
    assert produce(broker.bootstrap, topic, VALUES) == [None] * len(VALUES)
    first_pid = broker.pid

    broker.bounce(hard=True)

    assert broker.pid != first_pid
    messages = consume(broker.bootstrap, topic, len(VALUES), group_protocol="classic")
    assert [message.value() for message in messages] == VALUES


def test_an_open_port_is_not_ready_an_answer_is(kafka: Broker) -> None:
    kafka.send_signal(signal.SIGSTOP)
    try:
        # The kernel still accepts connections for it.
        with pytest.raises(BrokerFailed, match="not ready after 1 s"):
            kafka.wait_ready(timeout_s=1)
    finally:
        kafka.send_signal(signal.SIGCONT)
    kafka.wait_ready()
    assert list(admin(kafka.bootstrap).list_topics(timeout=10).brokers) == [kafka.node_id]


@pytest.mark.parametrize("kind", ["kafka", "old_kafka"])
def test_topics_are_never_created_by_themselves(kind: str, request: pytest.FixtureRequest) -> None:
    bootstrap: str = request.getfixturevalue(kind).bootstrap
    # How long librdkafka hopes for a topic that it was told does not exist; 30 s by default.
    hope = {"topic.metadata.propagation.max.ms": 100}
    [outcome] = produce(bootstrap, "test.never-created", [b"lost"], **hope)
    assert outcome is not None
    assert outcome.name() == "UNKNOWN_TOPIC_OR_PART"
    assert "test.never-created" not in admin(bootstrap).list_topics(timeout=10).topics


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["kafka", "old_kafka"])
def test_only_this_machine_can_connect(kind: str, request: pytest.FixtureRequest) -> None:
    found: Any = request.getfixturevalue(kind)
    for server in [found, found.zookeeper] if kind == "old_kafka" else [found]:
        assert listening_addresses(server.pid) == LOOPBACK


def test_a_broker_that_cannot_start_says_why(kafka: Broker, tmp_path: Path) -> None:
    taken = int(kafka.bootstrap.rpartition(":")[2])
    with pytest.raises(BrokerFailed, match="Address already in use"), Broker(tmp_path, port=taken):
        pass


def test_wrong_settings_are_told_before_it_starts(kafka: Broker, tmp_path: Path) -> None:
    with pytest.raises(BrokerFailed, match=r"log\.retention\.ms"), Broker(tmp_path, settings={"log.retention.ms": "x"}):
        pass


def test_the_version_is_the_one_of_the_pom(kafka: Broker) -> None:
    assert f"kafka-server-{KAFKA.version}.jar" in {jar.name for jar in KAFKA.folder.iterdir()}
