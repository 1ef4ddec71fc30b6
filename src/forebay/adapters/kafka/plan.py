"""How our consumers behave in their groups."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from forebay.adapters.kafka.link import KafkaLink

HEARTBEAT_S = 3.0
"""Of a classic member, as in Kafka; more often where the session is short, so that four may be lost."""

ANSWER_WITHIN_S = 10.0
"""From 60 s: after so long a connection whose broker says nothing is given up, and with it a commit that waits for the
group's coordinator finds the next one (measured with the coordinator frozen, three brokers, the classic protocol: 12 s
instead of 48). Twice the 5 s that a broker may take for a commit (`offsets.commit.timeout.ms`). While there
is no coordinator at all a commit waits for it, as all of the group does: nothing could begin."""


def group_config(group: str, protocol: str, session_timeout_s: float) -> dict[str, Any]:
    """librdkafka's settings that make a member of `group`. Under the protocol of KIP-848 the brokers say the rest."""
    config: dict[str, Any] = {"group.id": group, "group.protocol": protocol}
    if protocol == "classic":
        config["partition.assignment.strategy"] = "cooperative-sticky"
        config["session.timeout.ms"] = int(session_timeout_s * 1000)
        config["heartbeat.interval.ms"] = int(min(HEARTBEAT_S, session_timeout_s / 5) * 1000)
    return config


class ConsumerPlan(Struct, frozen=True, kw_only=True):
    """`group_protocol`: "consumer" (KIP-848, brokers from 4.0) or "classic".

    `drain_s`: how long a partition that is to go waits for what has begun in it; the new owner waits with it.
    `begin_wait_s`: how long `begin` tries.
    `session_timeout_s`: of a classic member, how long it may be silent before its partitions go to others; under the
    other protocol the brokers say (`group.consumer.session.timeout.ms`). 45 as in Kafka since 3.0 (KIP-735).
    `max_poll_interval_s`: the thread may be held up for so long, by `drain_s` and by a broker that does not answer a
    commit.
    """

    group_protocol: str = "consumer"
    drain_s: float = 5.0
    begin_wait_s: float = 10.0
    session_timeout_s: float = 45.0
    max_poll_interval_s: float = 300.0

    def config(self, link: KafkaLink, group: str, **more: Any) -> dict[str, Any]:
        """librdkafka's settings for a member of `group`. Raises Misconfigured."""
        config = {
            **group_config(group, self.group_protocol, self.session_timeout_s),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # never a silent jump: see Reader._in_the_log
            "check.crcs": True,
            "max.poll.interval.ms": int(self.max_poll_interval_s * 1000),
            "socket.timeout.ms": int(ANSWER_WITHIN_S * 1000),
            # New partitions are seen within so long; 300 s by default.
            "topic.metadata.refresh.interval.ms": 30_000,
            # Little is fetched ahead, as nobody else can take it, and it is held unpacked: 64 MiB and 1 MiB packed of
            # each partition by default. With 500,000 jobs of 1 KB waiting that is 3 MB of memory in place of 106
            # (benchmarks/kafka/memory.py); larger records come whole all the same (KIP-74). A full queue is looked at
            # again after 20 ms and not after a second, which would allow 200 messages per partition and second.
            "fetch.message.max.bytes": 64 * 1024,
            "queued.max.messages.kbytes": 2048,
            "queued.min.messages": 200,
            "fetch.queue.backoff.ms": 20,
            "fetch.wait.max.ms": 100,
        }
        return link.config(**config, **more)
