"""Which partitions of the log fall to this projector: the membership of a group that reads and commits nothing.

Positions live in the store, in the transaction that applies what was read, so the group only shares the work out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, TopicPartition

from forebay.adapters.kafka.lifeline import Lifeline
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.plan import group_config

log = structlog.get_logger(__name__)

MEMBER: Mapping[str, Any] = {
    "auto.offset.reset": "latest",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
}


class Membership:
    """Used from one thread. `poll` it at least every few seconds."""

    def __init__(
        self,
        link: KafkaLink,
        group_protocol: str,
        session_timeout_s: float,
        *,
        consumer: Callable[[dict[str, Any]], Consumer] = Consumer,
    ) -> None:
        own = group_config(link.names.projector_group, group_protocol, session_timeout_s)
        self._lifeline = Lifeline()
        self._over = False
        callbacks = {**self._lifeline.settings, "error_cb": self._note}
        self._consumer = consumer(link.config(**{**MEMBER, **own, **callbacks}))
        self._events_topic = link.names.events_topic
        self._topics: list[str] = []
        self._assigned: set[tuple[str, int]] = set()

    @property
    def assigned(self) -> list[str]:
        """Our sources: requests before events, in order."""
        return [
            f"{topic}:{partition}"
            for topic, partition in sorted(self._assigned, key=lambda place: (place[0] == self._events_topic, *place))
        ]

    @property
    def cut(self) -> bool:
        """Whether it takes part in nothing any more, for good: after a fatal error, or see Lifeline."""
        return self._over or self._lifeline.cut

    def subscribe(self, topics: Iterable[str]) -> None:
        """Share these topics with the other members. Costs nothing if they are the same as before."""
        if (wanted := sorted(topics)) != self._topics and wanted:
            self._topics = wanted
            self._consumer.subscribe(
                wanted, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )

    def poll(self) -> None:
        """Take part: callbacks run in here."""
        message = self._consumer.poll(0)
        if message is not None and (error := message.error()) is not None:
            log.warning("event_log.group_trouble", code=error.name(), reason=error.str())
            self._note(error)

    def close(self) -> None:
        """Leave, so that others have our partitions at once."""
        self._consumer.close()

    def _note(self, error: KafkaError) -> None:
        self._over = self._over or error.fatal()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # At their end and paused: they are read by another consumer, from where the store says.
        consumer.incremental_assign([TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions])
        consumer.pause(partitions)
        self._assigned |= {(one.topic, one.partition) for one in partitions}
        log.info("event_log.assigned", partitions=len(partitions), all=len(self._assigned))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_unassign(partitions)
        self._assigned -= {(one.topic, one.partition) for one in partitions}
        log.info("event_log.revoked", partitions=len(partitions), all=len(self._assigned))
