"""How much a group has not done, by the answers of brokers that are choosing a leader."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from forebay.adapters.kafka import offsets as module
from forebay.adapters.kafka.depth import depth
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.names import Names
from forebay.adapters.kafka.offsets import EARLIEST, Offsets


class Brokers:
    """One topic with one partition, of which records 2 to 9 are there and the group has done those before 5. The first
    question for its bounds is answered by `error`."""

    names = Names()

    def __init__(self, error: int) -> None:
        self._errors = [error]

    def admin(self) -> Any:
        return self

    def refusal(self) -> None:
        return None

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def list_consumer_group_offsets(self, asked: Any, request_timeout: float) -> Any:
        [group] = asked
        committed = TopicPartition("topic", 0, 5)
        return {group.group_id: answered(SimpleNamespace(topic_partitions=[committed]))}

    def list_offsets(self, asked: Any, **_: Any) -> Any:
        if self._errors:
            failed: Future[Any] = Future()
            failed.set_exception(KafkaException(KafkaError(self._errors.pop())))
            return dict.fromkeys(asked, failed)
        return {one: answered(SimpleNamespace(offset=2 if spec is EARLIEST else 10)) for one, spec in asked.items()}


def answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


@pytest.mark.parametrize("error", [KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_depth_is_told_as_soon_as_there_is_a_leader(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    assert depth(Offsets(cast("KafkaLink", Brokers(error))), "topic", "group") == 5
