"""Which partitions topics have, where each begins and ends, and how far a group is: questions to the brokers. Every
method blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin._listoffsets import OffsetSpec  # admin hands it on without exporting it

from forebay.adapters.kafka.link import KafkaLink
from forebay.core.errors import Unavailable

ANSWER_WITHIN_S = 2.0
"""Of each question; a page that a person waits for asks two."""

AGAIN_S = 0.1
NOT_YET = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
"""Asked again after AGAIN_S: leaders are being chosen, as they are for a new topic, or a coordinator reads what groups
have committed, as it does after each start of a broker."""

EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library has no types there
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # as above


T = TypeVar("T")


def source_of(topic: str, partition: int) -> str:
    """`forebay.events:7`"""
    return f"{topic}:{partition}"


def partition_of(source: str) -> tuple[str, int]:
    topic, _, partition = source.rpartition(":")
    return topic, int(partition)


def _told(partitions: list[TopicPartition]) -> list[TopicPartition]:
    for one in partitions:
        if one.error is not None:
            raise KafkaException(one.error)
    return partitions


class Offsets:
    """Raises Unavailable where no broker answers in time. May be used from several threads."""

    def __init__(self, link: KafkaLink) -> None:
        self._link = link
        self._names = link.names
        self._admin = link.admin()

    def sources(self) -> list[str]:
        """Of the log, as far as its topics are there: events and requests."""
        return [source_of(topic, one) for topic, count in sorted(self._partitions().items()) for one in range(count)]

    def ends(self) -> Mapping[str, int]:
        """The offset after the newest record of each source."""
        return self._ask(self.sources(), LATEST)

    def bounds(self, sources: Sequence[str] | None = None) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """The offset of the oldest record that there still is, and the one after the newest, of each source; of all
        that the log has unless some are named."""
        if sources is None:
            sources = self.sources()
        return self._ask(sources, EARLIEST), self._ask(sources, LATEST)

    def sources_of(self, topic: str) -> list[str]:
        """Of one topic, which must be there."""
        try:
            found = self._admin.list_topics(topic, timeout=ANSWER_WITHIN_S).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
        except KafkaException as exc:
            raise self._away(exc) from exc
        return [source_of(topic, one) for one in found.partitions]

    def committed(self, group: str, sources: Sequence[str]) -> Mapping[str, TopicPartition]:
        """What the group has committed of each, with its metadata; of a source without, the offset is negative.

        A client of the group asks, without joining it: the admin client's own question ends the process where a broker
        answers that it does not coordinate the group (librdkafka issue 5040, in 2.16 still).
        """
        partitions = [TopicPartition(*partition_of(source)) for source in sources]
        client = Consumer(self._link.config(**{"group.id": group, "enable.auto.commit": False, "log_level": 0}))
        try:
            found = self._until_told(lambda: _told(client.committed(partitions, timeout=ANSWER_WITHIN_S)))
        finally:
            client.close()
        return {source_of(one.topic, one.partition): one for one in found}

    def _partitions(self) -> dict[str, int]:
        try:
            metadata = self._admin.list_topics(timeout=ANSWER_WITHIN_S)
        except KafkaException as exc:
            raise self._away(exc) from exc
        names = self._names
        return {
            topic: len(found.partitions)
            for topic, found in metadata.topics.items()
            if topic == names.events_topic or names.is_requests_topic(topic)
        }

    def _ask(self, sources: Sequence[str], spec: OffsetSpec) -> dict[str, int]:
        if not sources:
            return {}
        wanted = {TopicPartition(*partition_of(source)): spec for source in sources}
        return self._until_told(lambda: self._list(wanted))

    def _until_told(self, question: Callable[[], T]) -> T:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while True:
            try:
                return question()
            except KafkaException as exc:
                if exc.args[0].code() not in NOT_YET or time.monotonic() > deadline:
                    raise self._away(exc) from exc
            time.sleep(AGAIN_S)

    def _list(self, wanted: Mapping[TopicPartition, OffsetSpec]) -> dict[str, int]:
        answers = self._admin.list_offsets(
            dict(wanted), isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_WITHIN_S
        )
        try:
            return {
                source_of(one.topic, one.partition): answer.result(ANSWER_WITHIN_S + 1.0).offset
                for one, answer in answers.items()
            }
        except TimeoutError as exc:
            self._admin = self._link.admin()
            raise Unavailable("Kafka does not tell where topics begin and end") from exc

    def _away(self, exc: KafkaException) -> Unavailable:
        """The next question is another client's: this one may know no broker any more (see Lifeline), and has nothing
        that would be lost with it."""
        reason: KafkaError = self._admin.refusal() or exc.args[0]
        self._admin = self._link.admin()
        return Unavailable(f"Kafka does not tell where topics begin and end: {reason.str()}")
