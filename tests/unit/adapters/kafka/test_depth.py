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
    question for its bounds, and the first for what is committed, are answered by these errors."""

    names = Names()

    def __init__(self, *, bounds: int | None = None, committed: int | None = None) -> None:
        self._bounds = [] if bounds is None else [bounds]
        self._committed = [] if committed is None else [committed]

    def config(self, **more: Any) -> dict[str, Any]:
        return {"brokers": self, **more}

    def admin(self) -> Any:
        return self

    def refusal(self) -> None:
        return None

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self._committed:
            raise KafkaException(KafkaError(self._committed.pop()))
        return [TopicPartition(one.topic, one.partition, 5) for one in asked]

    def close(self) -> None: ...

    def list_offsets(self, asked: Any, **_: Any) -> Any:
        if self._bounds:
            failed: Future[Any] = Future()
            failed.set_exception(KafkaException(KafkaError(self._bounds.pop())))
            return dict.fromkeys(asked, failed)
        return {one: answered(SimpleNamespace(offset=2 if spec is EARLIEST else 10)) for one, spec in asked.items()}


def answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    monkeypatch.setattr(module, "Consumer", lambda config: config["brokers"])


@pytest.mark.parametrize("error", [KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_depth_is_told_as_soon_as_there_is_a_leader(error: int) -> None:
    assert depth(Offsets(cast("KafkaLink", Brokers(bounds=error))), "topic", "group") == 5


@pytest.mark.parametrize("error", [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS])
def test_depth_is_told_as_soon_as_there_is_a_coordinator(error: int) -> None:
    assert depth(Offsets(cast("KafkaLink", Brokers(committed=error))), "topic", "group") == 5
