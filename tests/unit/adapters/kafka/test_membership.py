"""A projector's membership when its consumer fails for good. The consumer is a stand-in: none fails on demand."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, Message

from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.membership import Membership

FATAL = KafkaError(KafkaError._FATAL, "it is over", fatal=True)
PASSING = KafkaError(KafkaError._TRANSPORT, "for now")


class StandIn:
    """Tells of its errors in a poll: by a callback, or as a message."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._callback = config["error_cb"]
        self.called_with: list[KafkaError] = []
        self.given: list[KafkaError] = []

    def poll(self, timeout_s: float) -> Message | None:
        for error in self.called_with:
            self._callback(error)
        return Message(error=self.given.pop()) if self.given else None


@pytest.fixture
def made() -> list[StandIn]:
    return []


@pytest.fixture
def membership(made: list[StandIn]) -> Membership:
    def make(config: dict[str, Any]) -> Consumer:
        made.append(StandIn(config))
        return cast("Consumer", made[-1])

    return Membership(KafkaLink(bootstrap="127.0.0.1:1"), "consumer", 45.0, consumer=make)


@pytest.mark.parametrize("how", ["called_with", "given"])
@pytest.mark.parametrize(("error", "cut"), [(FATAL, True), (PASSING, False)])
def test_a_fatal_error_is_the_end_of_it_and_no_other_is(
    made: list[StandIn], membership: Membership, how: str, error: KafkaError, cut: bool
) -> None:
    getattr(made[0], how).append(error)
    membership.poll()
    made[0].called_with.clear()
    membership.poll()
    assert membership.cut is cut
