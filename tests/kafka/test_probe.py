"""What the brokers can do is found out, on the newest and on the oldest that we support."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dev.kafka.broker import Broker
from dev.kafka.ports import HOST, free_port
from dev.kafka.zookeeper.broker import OldBroker
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.probe import BrokerFacts, probe
from forebay.core.errors import Unavailable

NOWHERE = f"{HOST}:{free_port()}"
WITHIN_S = 10.0


def asked(bootstrap: str) -> BrokerFacts:
    return probe(KafkaLink(bootstrap=bootstrap), WITHIN_S)


def test_the_newest_broker_knows_the_new_group_protocol_and_share_groups(kafka: Broker) -> None:
    facts = asked(kafka.bootstrap)
    assert facts.consumer_protocol
    assert facts.share_groups


def test_the_oldest_broker_knows_the_classic_protocol_only(old_kafka: OldBroker) -> None:
    facts = asked(old_kafka.bootstrap)
    assert not facts.consumer_protocol
    assert not facts.share_groups


def test_the_first_broker_that_answers_is_enough(kafka: Broker) -> None:
    assert asked(f"{NOWHERE}, {kafka.bootstrap}").consumer_protocol


def test_when_none_answers_each_is_named() -> None:
    other = f"{HOST}:{free_port()}"
    with pytest.raises(Unavailable) as caught:
        asked(f"{NOWHERE},{other}")
    assert NOWHERE in caught.value.message
    assert other in caught.value.message


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """Says `answer` to the first who asks, and hangs up."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"{HOST}:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", (6).to_bytes(4) + bytes(6), (8).to_bytes(4) + b"abc"]
)
def test_a_server_that_is_no_broker_is_no_answer(answer: bytes) -> None:
    with server(answer) as bootstrap, pytest.raises(Unavailable, match="no Kafka broker answers"):
        asked(bootstrap)


def test_a_broker_that_does_not_know_the_question_gets_the_classic_protocol() -> None:
    unsupported_version = (0).to_bytes(4) + (35).to_bytes(2) + bytes(4)
    with server(len(unsupported_version).to_bytes(4) + unsupported_version) as bootstrap:
        assert not asked(bootstrap).consumer_protocol


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"apis": frozenset({68}), "features": {"group.version": 1}}, True),
        ({"apis": frozenset({68}), "features": {"group.version": 0}}, False),
        ({"apis": frozenset({68})}, False),
        ({"apis": frozenset(), "features": {"group.version": 1}}, False),
    ],
)
def test_the_new_protocol_needs_the_request_and_the_finalized_feature(fields: Any, expected: bool) -> None:
    assert BrokerFacts(**fields).consumer_protocol is expected
