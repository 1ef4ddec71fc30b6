"""Topics on real brokers: looked at, created, changed.

Everything here blocks (a few round trips to the brokers); call it in a thread where an event loop runs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource  # admin does not export these
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewPartitions, NewTopic

from forebay.adapters.kafka.failures import unavailable
from forebay.adapters.kafka.layout import (
    Difference,
    Found,
    Kind,
    Topic,
    TopicWishes,
    changes,
    copies_at_risk,
    desired,
    differences,
    durability_of,
)
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.offsets import LATEST, NOT_YET
from forebay.core.errors import Misconfigured, Unavailable
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.ports.queue import Durability

log = structlog.get_logger(__name__)

POLL_S = 0.05
APPLY = "`forebay topics apply`"


class Topics:
    """The topics of `models`, seen and changed through one admin client."""

    def __init__(
        self, link: KafkaLink, models: Collection[str], wishes: TopicWishes | None = None, *, timeout_s: float = 10.0
    ) -> None:
        self._names = link.names
        self._models = models
        self._wishes = wishes or TopicWishes()
        self._timeout_s = timeout_s
        self._admin = link.admin()

    def plan(self) -> list[Difference]:
        """What differs from what should be; [] if nothing. Raises Unavailable, Misconfigured (no right to look)."""
        return self._look().differences

    def apply(self) -> list[Difference]:
        """Create what is missing and change what can be changed; returns what still differs. Harmless to repeat.

        Raises Unavailable, also where brokers that are down would cost new topics a copy, and Misconfigured when the
        brokers refuse, with all refusals.
        """
        look = self._look()
        if self._wishes.replication is None and (risk := look.copies_at_risk):
            raise Unavailable(f"{risk}; apply again when all brokers are up, or set kafka_replication")
        refused = [
            *self._create(look.to_apply(Kind.MISSING)),
            *self._grow(look.to_apply(Kind.PARTITIONS)),
            *self._configure(look.to_configure()),
        ]
        if refused:
            raise Misconfigured("Kafka refuses to change topics:", mistakes=refused)
        return self._settled()

    def check(self) -> Durability:
        """For the start of a role: the durability of the topics. Differences that do not stop it are logged.

        Raises Misconfigured, naming what is missing and the remedy; Unavailable.
        """
        look = self._look()
        for one in look.differences:
            if not one.blocking:
                log.warning("kafka.topic_differs", topic=one.topic, kind=one.kind.value, difference=one.text)
        if blocking := [f"{one.topic}: {one.text}" for one in look.differences if one.blocking]:
            raise Misconfigured(f"topics are not as they must be; {APPLY} creates and changes them:", mistakes=blocking)
        return durability_of([look.found[name] for name in self._deciding()])

    def _look(self) -> _Look:
        with unavailable("topics cannot be looked at", self._admin):
            metadata = self._admin.list_topics(timeout=self._timeout_s)
        wanted = desired(self._names, self._models, self._wishes, len(metadata.brokers))
        return _Look(wanted, self._found(metadata, [topic.name for topic in wanted]))

    def _settled(self) -> list[Difference]:
        """What differs once every broker has heard of what was changed, and every leader that it leads: a topic is
        confirmed before that, and a job that is submitted meanwhile would be refused."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            look = self._look()
            left = look.differences
            settled = not any(one.applicable for one in left) and self._led(look.found)
            if settled or time.monotonic() > deadline:
                return left
            time.sleep(POLL_S)

    def _led(self, found: Mapping[str, Found]) -> bool:
        """Only a leader answers for offsets."""
        wanted = [TopicPartition(name, one) for name, topic in found.items() for one in range(topic.partitions)]
        answers = self._admin.list_offsets(dict.fromkeys(wanted, LATEST), request_timeout=self._timeout_s)
        with unavailable("the leaders of topics do not answer", self._admin):
            for answer in answers.values():
                try:
                    answer.result(self._timeout_s)
                except KafkaException as exc:
                    if exc.args[0].code() in NOT_YET:
                        return False
                    raise
        return True

    def _found(self, metadata: ClusterMetadata, names: Sequence[str]) -> dict[str, Found]:
        present = {name: metadata.topics[name] for name in names if name in metadata.topics}
        configs = self._configs(list(present))
        return {
            name: Found(
                partitions=len(topic.partitions),
                replication=min((len(one.replicas) for one in topic.partitions.values()), default=0),
                config=configs[name],
            )
            for name, topic in present.items()
            if name in configs
        }

    def _deciding(self) -> list[str]:
        """Where a job may be: requests, retry topics while it waits out a delay, and events."""
        channels = [Channel(model, lane) for model in self._models for lane in Lane]
        requests = [self._names.requests_topic(channel) for channel in channels]
        return [self._names.events_topic, *self._names.retry_topics, *requests]

    def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Without those of which the broker that was asked has not heard yet, unlike the one that named them."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        futures = self._admin.describe_configs(resources, request_timeout=self._timeout_s)
        configs = {}
        for resource, future in futures.items():
            unheard_of = _unless(KafkaError.UNKNOWN_TOPIC_OR_PART)
            with unavailable("the configuration of topics cannot be read", self._admin), unheard_of:
                entries = future.result(self._timeout_s)
                configs[resource.name] = {key: entry.value for key, entry in entries.items()}
        return configs

    def _create(self, topics: Sequence[Topic]) -> list[str]:
        if not topics:
            return []
        new = [NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.config)) for topic in topics]
        futures = self._admin.create_topics(new, operation_timeout=self._timeout_s)
        return self._outcomes(futures, done=KafkaError.TOPIC_ALREADY_EXISTS)

    def _grow(self, topics: Sequence[Topic]) -> list[str]:
        if not topics:
            return []
        new = [NewPartitions(topic.name, topic.partitions) for topic in topics]
        futures = self._admin.create_partitions(new, operation_timeout=self._timeout_s)
        return self._outcomes(futures, done=KafkaError.INVALID_PARTITIONS)

    def _configure(self, settings: Mapping[str, Mapping[str, str]]) -> list[str]:
        if not settings:
            return []
        futures = self._admin.incremental_alter_configs(
            [_resource(name, config) for name, config in settings.items()], request_timeout=self._timeout_s
        )
        return self._outcomes({resource.name: future for resource, future in futures.items()})

    def _outcomes(self, futures: Mapping[str, Any], *, done: int = KafkaError.NO_ERROR) -> list[str]:
        """In words, those that were refused. Raises Unavailable. With the code `done`, another `apply` was faster;
        where it was not, `_settled` finds what still differs."""
        refused = []
        for name, future in futures.items():
            try:
                with unavailable("topics cannot be changed", self._admin), _unless(done):
                    future.result(self._timeout_s)
            except Misconfigured as exc:
                refused.append(f"{name}: {exc.message}")
        return refused


class _Look:
    """What should be, what is, and how the two differ."""

    def __init__(self, wanted: Sequence[Topic], found: Mapping[str, Found]) -> None:
        self.found = found
        self.differences = differences(wanted, found)
        self._wanted = wanted

    def to_apply(self, kind: Kind) -> list[Topic]:
        """The topics with a difference of this kind that can be changed."""
        names = {one.topic for one in self.differences if one.kind is kind and one.applicable}
        return [topic for topic in self._wanted if topic.name in names]

    def to_configure(self) -> dict[str, dict[str, str]]:
        """By topic, the settings to give it and no others: one that is better than needed stays."""
        there = [topic for topic in self._wanted if topic.name in self.found]
        return {topic.name: settings for topic in there if (settings := changes(topic, self.found[topic.name]))}

    @property
    def copies_at_risk(self) -> str:
        return copies_at_risk(self._wanted, self.found)


@contextlib.contextmanager
def _unless(code: int) -> Iterator[None]:
    try:
        yield
    except KafkaException as exc:
        if exc.args[0].code() != code:
            raise


def _resource(name: str, config: Mapping[str, str]) -> ConfigResource:
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    return ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
