"""The names of topics and consumer groups. All begin with one prefix, so that ACLs can speak of it.

<prefix>.requests.<model>.<lane>   one per channel; may gain partitions at any time
<prefix>.events                    a fixed number of partitions
<prefix>.control                   compacted: reports of workers, jobs that were canceled
<prefix>.retry.<5s|30s|5m>         one per delay
<prefix>.dlq                       dead letters and records that nobody can read
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from forebay.core.errors import InvalidRequest
from forebay.core.message import Channel

RETRY_TIERS_S: Mapping[str, float] = {"5s": 5.0, "30s": 30.0, "5m": 300.0}
EVENTS_PARTITIONS = 32
"""For ever: an event's partition is murmur2 of its key modulo this, whatever the topic has, so that a partition that is
added by accident moves nobody."""

DEFAULT_TENANT = "default"
GOOD_NAME = re.compile(r"[a-zA-Z0-9._-]+")
NAME_MAX = 249
"""Kafka's rule for topics: org.apache.kafka.common.internals.Topic."""


class Names(Struct, frozen=True):
    """`tenants` says to which tenant a foreign record belongs, by requests topic; the default tenant for the rest."""

    prefix: str = "forebay"
    tenants: Mapping[str, str] = {}

    @property
    def requests_prefix(self) -> str:
        return f"{self.prefix}.requests."

    @property
    def retry_prefix(self) -> str:
        return f"{self.prefix}.retry."

    @property
    def events_topic(self) -> str:
        return f"{self.prefix}.events"

    @property
    def control_topic(self) -> str:
        return f"{self.prefix}.control"

    @property
    def dlq_topic(self) -> str:
        return f"{self.prefix}.dlq"

    @property
    def retry_topics(self) -> tuple[str, ...]:
        """The shortest delay first."""
        return tuple(f"{self.retry_prefix}{tier}" for tier in RETRY_TIERS_S)

    @property
    def projector_group(self) -> str:
        return f"{self.prefix}.projector"

    @property
    def scheduler_group(self) -> str:
        return f"{self.prefix}.scheduler"

    @property
    def control_group(self) -> str:
        """No group: whoever reads all of the control topic must give a consumer some name."""
        return f"{self.prefix}.control"

    @property
    def lookup_group(self) -> str:
        """No group either: of whoever reads single records again."""
        return f"{self.prefix}.lookup"

    def requests_topic(self, channel: Channel) -> str:
        return f"{self.requests_prefix}{channel.model}.{channel.lane}"

    def worker_group(self, channel: Channel) -> str:
        """A consumer's group. Model and lane are two parts, so it is never the projector's or the scheduler's."""
        return f"{self.prefix}.{channel.model}.{channel.lane}"

    def channel_of(self, topic: str) -> Channel:
        """The inverse of `requests_topic`. A model's name may hold dots, a lane's none. Raises InvalidRequest."""
        model, _, lane = topic.removeprefix(self.requests_prefix).rpartition(".")
        if not topic.startswith(self.requests_prefix) or not model or not lane:
            raise InvalidRequest(f"{topic} is no requests topic: {self.requests_prefix}<model>.<lane>")
        return Channel(model, lane)

    def is_requests_topic(self, topic: str) -> bool:
        return topic.startswith(self.requests_prefix) and topic.count(".", len(self.requests_prefix)) >= 1

    def tenant_of(self, topic: str) -> str:
        """To whom a foreign record on this topic belongs."""
        return self.tenants.get(topic, DEFAULT_TENANT)


def mistake_in_name(name: str) -> str | None:
    """Why Kafka would refuse a topic of this name, in words; None if it would not."""
    if not GOOD_NAME.fullmatch(name) or name in (".", ".."):
        return f"{name!r} may hold letters, digits, '.', '_' and '-' only"
    if len(name) > NAME_MAX:
        return f"{name} has {len(name)} characters, Kafka takes {NAME_MAX}"
    return None
