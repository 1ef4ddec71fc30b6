"""What stands behind the ports when jobs go through Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

import structlog
from msgspec import Struct, structs

from forebay.adapters.kafka.acls import Acl, Role, acls
from forebay.adapters.kafka.cancellations import KafkaCancellations
from forebay.adapters.kafka.control import ControlEar
from forebay.adapters.kafka.event_log import KafkaEventLog
from forebay.adapters.kafka.fleet import KafkaFleet
from forebay.adapters.kafka.follower import FollowerPlan
from forebay.adapters.kafka.layout import Difference, TopicWishes
from forebay.adapters.kafka.link import KafkaLink, Security
from forebay.adapters.kafka.names import Names
from forebay.adapters.kafka.probe import BrokerFacts, probe
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.adapters.kafka.topics import Topics
from forebay.assembly.waiting import until_there
from forebay.core.errors import InvalidRequest, Misconfigured
from forebay.core.foreign import ForeignClocks
from forebay.core.lanes import Lane
from forebay.ports.queue import Durability
from forebay.settings import Settings

__all__ = ["Acl", "Difference", "KafkaBackends", "Role", "acls_of", "ask_brokers", "open_kafka", "topics_of"]

CLOSE_WITHIN_S = 5.0
"""For all clients together, after the roles have ended: with what those take, a stop is over well within the 30 s after
which Kubernetes kills."""

WRITE_NOTHING = frozenset({"projector"})
"""Roles that have no producer: brokers with an authorizer refuse one to whoever may write to no topic, and each start
would log that."""

Closing = Callable[[], Coroutine[Any, Any, None]]

log = structlog.get_logger()


class KafkaBackends(Struct, frozen=True):
    queue: KafkaQueue
    events: KafkaEventLog
    fleet: KafkaFleet
    cancellations: KafkaCancellations


async def open_kafka(
    settings: Settings,
    roles: Collection[str],
    models: Collection[str],
    stack: contextlib.AsyncExitStack,
    *,
    clocks: ForeignClocks,
    whole_log: bool,
) -> KafkaBackends:
    """Waits for the brokers. Raises Misconfigured when topics are not as they must be, or access is refused."""
    link = structs.replace(link_of(settings), clocks=clocks)
    facts = await until_there("Kafka", lambda: asyncio.to_thread(probe, link))
    topics = topics_of(settings, models)
    durability = await until_there("Kafka", lambda: asyncio.to_thread(topics.check))
    protocol = _group_protocol(settings, facts)
    _log_cluster(settings, facts, durability, protocol)
    _log_unknown_models(link, clocks)
    publisher = Publisher(link)
    if set(roles) - WRITE_NOTHING:
        await publisher.open()
    parts: dict[str, Closing] = {}
    stack.push_async_callback(_close, parts, publisher)
    follow = None
    if "projector" in roles:
        follow = FollowerPlan(
            group_protocol=protocol, session_timeout_s=settings.kafka_session_timeout_s, whole=whole_log
        )
    events = KafkaEventLog(link, publisher, follow)
    await events.open()
    parts["events"] = events.close
    ear = ControlEar(link)
    fleet = KafkaFleet(link, publisher, ear if "api" in roles else None)
    await fleet.open()
    parts["fleet"] = fleet.close
    cancellations = KafkaCancellations(link, publisher, ear if "worker" in roles else None)
    ear.open()
    parts["control"] = ear.close
    queue = KafkaQueue(
        link,
        publisher,
        durability=durability,
        group_protocol=protocol,
        session_timeout_s=settings.kafka_session_timeout_s,
        max_poll_interval_s=settings.kafka_max_poll_interval_s,
        drain_s=settings.kafka_drain_s,
    )
    parts["queue"] = queue.close
    return KafkaBackends(queue, events, fleet, cancellations)


async def _close(parts: Mapping[str, Closing], publisher: Publisher) -> None:
    """All of them at once, and the publisher last, through which they take their leave; within CLOSE_WITHIN_S whatever
    the brokers do. Nothing that is left then is more than what a death would leave."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CLOSE_WITHIN_S
    closing = [asyncio.create_task(close(), name=name) for name, close in parts.items()]
    if closing:
        _, late = await asyncio.wait(closing, timeout=CLOSE_WITHIN_S)
        for task in late:
            log.warning("kafka.close_cut_short", part=task.get_name(), after_s=CLOSE_WITHIN_S)
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)
    await publisher.close(max(0.0, deadline - loop.time()))
    for task in closing:
        if not task.cancelled():
            task.result()


def link_of(settings: Settings) -> KafkaLink:
    """Raises Misconfigured."""
    mechanism = settings.kafka_sasl_mechanism if settings.kafka_security.startswith("sasl") else ""
    return KafkaLink(
        bootstrap=settings.kafka_bootstrap,
        prefix=settings.kafka_prefix,
        tenants=_tenants(settings),
        client_id=f"{settings.kafka_prefix}-{settings.worker_id}",
        security=Security(
            protocol=settings.kafka_security,
            mechanism=mechanism,
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            ca_file=settings.kafka_ca_file,
            certificate_file=settings.kafka_certificate_file,
            key_file=settings.kafka_key_file,
            key_password=settings.kafka_key_password.get_secret_value(),
            oauth_token_url=settings.kafka_oauth_token_url,
            oauth_client_id=settings.kafka_oauth_client_id,
            oauth_client_secret=settings.kafka_oauth_client_secret.get_secret_value(),
            oauth_scope=settings.kafka_oauth_scope,
        ),
    )


def _tenants(settings: Settings) -> Mapping[str, str]:
    """By requests topic. A topic that is none would leave its records to the default tenant without a word."""
    names, tenants, mistakes = Names(settings.kafka_prefix), dict[str, str](), list[str]()
    for one in settings.kafka_tenants:
        topic, _, tenant = one.partition("=")
        try:
            lane = names.channel_of(topic).lane
        except InvalidRequest as exc:
            mistakes.append(f"kafka_tenants: {exc.message}")
            continue
        if lane not in set(Lane):
            mistakes.append(f"kafka_tenants: {topic} has no lane of ours; they are {', '.join(Lane)}")
        if tenants.setdefault(topic, tenant) != tenant:
            mistakes.append(f"kafka_tenants: {topic} is given to {tenants[topic]} and to {tenant}")
    if mistakes:
        raise Misconfigured("a setting is wrong:", mistakes=mistakes)
    return tenants


def _log_unknown_models(link: KafkaLink, clocks: ForeignClocks) -> None:
    """A topic of a model that is not there may be one to come; or a slip, whose records are the default tenant's."""
    for topic, tenant in link.tenants.items():
        model = link.names.channel_of(topic).model
        if model not in clocks.models:
            log.warning("kafka.tenant_of_unknown_model", topic=topic, tenant=tenant, known=sorted(clocks.models))


def ask_brokers(settings: Settings) -> str:
    """What the brokers can do, in words. Blocks. Raises Unavailable, Misconfigured."""
    facts = probe(link_of(settings))
    protocol = _group_protocol(settings, facts)
    share = "with" if facts.share_groups else "without"
    return f"answers; groups use the {protocol} protocol, {share} share groups"


def topics_of(settings: Settings, models: Collection[str]) -> Topics:
    wishes = TopicWishes(
        requests_partitions=settings.kafka_partitions,
        replication=settings.kafka_replication or None,
        retention_s=settings.kafka_retention_s,
        flush_each=settings.synchronous == "full",
    )
    return Topics(link_of(settings), models, wishes)


def acls_of(settings: Settings, role: Role, models: Collection[str]) -> list[Acl]:
    return acls(role, link_of(settings).names, models)


def _group_protocol(settings: Settings, facts: BrokerFacts) -> str:
    if settings.kafka_group_protocol != "auto":
        return settings.kafka_group_protocol
    return "consumer" if facts.consumer_protocol else "classic"


def _log_cluster(settings: Settings, facts: BrokerFacts, durability: Durability, protocol: str) -> None:
    log.info(
        "kafka.ready",
        bootstrap=settings.kafka_bootstrap,
        durability=durability.value,
        group_protocol=protocol,
        share_groups=facts.share_groups,
        features=dict(facts.features),
    )
