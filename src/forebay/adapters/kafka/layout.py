"""The topics that a set of models needs, and how those that are there differ. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from forebay.adapters.kafka.names import EVENTS_PARTITIONS, Names, mistake_in_name
from forebay.core.errors import Misconfigured
from forebay.core.lanes import Lane
from forebay.core.message import Channel
from forebay.ports.queue import Durability

DAY_S = 86_400.0
CONTROL_RETENTION_S = DAY_S
CONTROL_SEGMENT_S = 600.0

SEGMENTS = 14
"""In which what is retained lies, at least, if there are records all the time. Brokers delete whole segments, so that a
record stays for up to a segment's time longer than it must: with Kafka's own, of a week, a request might be there long
after the events that tell how it ended, and a rebuild would bring its job back."""
SEGMENT_LEAST_S, SEGMENT_MOST_S = 600.0, DAY_S

EVENTS_LONGER_SEGMENTS = 3
"""For so much longer than requests events are kept, so that no request is there without the deletion of its job, and no
rebuild brings it back. One segment, since the request's own goes as a whole, when the last record in it may; two more
for brokers that look for what may go every five minutes, for their clocks, and for a copy of the request that comes
back from a delay after its job was deleted."""

MOST_COPIES = 3
"""Of each record, unless an operator wishes for more."""

FLOORS = frozenset({"min.insync.replicas", "retention.ms", "max.message.bytes"})
"""More than is wanted harms nobody, and to lower it would: records less safe, log deleted, records refused."""


class TopicWishes(Struct, frozen=True, kw_only=True):
    """What an operator may choose.

    `requests_partitions`: how many workers can share one channel. 12 divides evenly among 2, 3, 4 and 6; it may be
    raised at any time.
    `replication`: copies of each record; None for one on each broker, three at most.
    `retention_s`: of requests; events are kept for somewhat longer. It bounds how long projectors may be away and how
    far back a rebuild reaches.
    `dlq_retention_s`: of dead letters, which wait for a person.
    `max_record_bytes`: Kafka's own default, about: larger inputs and outputs go to the blob store.
    `flush_each`: every record is on the disk before it is acknowledged. For one broker without replicas; slow.
    """

    requests_partitions: int = 12
    retry_partitions: int = 4
    dlq_partitions: int = 4
    replication: int | None = None
    retention_s: float = 7 * DAY_S
    dlq_retention_s: float = 30 * DAY_S
    max_record_bytes: int = 1024 * 1024
    flush_each: bool = False


class Topic(Struct, frozen=True, kw_only=True):
    """A topic as it should be. `fixed`: its partitions may never change, since a key's partition depends on them. Its
    records must be there for longer than those of the topics that it `outlives`."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    fixed: bool = False
    outlives: tuple[str, ...] = ()


class Found(Struct, frozen=True, kw_only=True):
    """A topic as it is. `config` are the values in effect, the brokers' defaults included."""

    partitions: int
    replication: int
    config: Mapping[str, str]


class Kind(StrEnum):
    MISSING = "missing"
    PARTITIONS = "partitions"
    CONFIG = "config"
    REPLICATION = "replication"


class Difference(Struct, frozen=True, kw_only=True):
    """One thing about one topic that is not as it should be, in words an operator can act on.

    `applicable`: `apply` can change it. `blocking`: no role may start while it is so.
    """

    topic: str
    kind: Kind
    text: str
    applicable: bool
    blocking: bool = False


def desired(names: Names, models: Collection[str], wishes: TopicWishes, brokers: int) -> list[Topic]:
    """The topics of these models on a cluster of so many brokers. Raises Misconfigured for names Kafka would refuse."""
    copies = wishes.replication or max(1, min(MOST_COPIES, brokers))
    kept = {
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "max.message.bytes": str(wishes.max_record_bytes),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": _in_sync(copies),
        "retention.bytes": "-1",
        **_kept_for(wishes.retention_s),
        "unclean.leader.election.enable": "false",
        **({"flush.messages": "1"} if wishes.flush_each else {}),
    }
    control = {
        **kept,
        "cleanup.policy": "compact,delete",
        "retention.ms": _ms(CONTROL_RETENTION_S),
        "segment.ms": _ms(CONTROL_SEGMENT_S),
    }
    dlq = {**kept, **_kept_for(wishes.dlq_retention_s)}
    longer_s = EVENTS_LONGER_SEGMENTS * _segment_s(wishes.retention_s)
    events = {**kept, "retention.ms": _ms(wishes.retention_s + longer_s)}
    requests = tuple(names.requests_topic(Channel(model, lane)) for model in sorted(models) for lane in Lane)
    counts: list[tuple[str, int, Mapping[str, str]]] = [
        *[(name, wishes.requests_partitions, kept) for name in requests],
        (names.events_topic, EVENTS_PARTITIONS, events),
        (names.control_topic, 1, control),
        *[(topic, wishes.retry_partitions, kept) for topic in names.retry_topics],
        (names.dlq_topic, wishes.dlq_partitions, dlq),
    ]
    topics = [
        Topic(
            name=name,
            partitions=count,
            replication=copies,
            config=config,
            fixed=name == names.events_topic,
            outlives=requests if name == names.events_topic else (),
        )
        for name, count, config in counts
    ]
    if mistakes := [mistake for topic in topics if (mistake := mistake_in_name(topic.name))]:
        raise Misconfigured("these names cannot be topics:", mistakes=mistakes)
    return topics


def differences(wanted: Sequence[Topic], found: Mapping[str, Found]) -> list[Difference]:
    """What of `wanted` is not so."""
    result: list[Difference] = []
    for topic in wanted:
        one = found.get(topic.name)
        if one is None:
            text = f"missing; {topic.partitions} partitions, {topic.replication} copies"
            result.append(Difference(topic=topic.name, kind=Kind.MISSING, text=text, applicable=True, blocking=True))
        else:
            outlived = _outlived(topic, wanted, found)
            config = _config(topic, one, but=("retention.ms",) if outlived else ())
            result += [*_partitions(topic, one), *_replication(topic, one), *config, *outlived]
    return result


def changes(topic: Topic, found: Found) -> dict[str, str]:
    """The settings that `apply` may give this topic. What must be in sync follows the copies that it has, whatever
    brokers are up: those that are down are not to make anything less safe."""
    wanted = {**topic.config, "min.insync.replicas": _in_sync(found.replication)}
    return {key: value for key, value in wanted.items() if not _holds(key, found.config.get(key), value)}


def copies_at_risk(wanted: Sequence[Topic], found: Mapping[str, Found]) -> str:
    """Why new topics would be less safe than ours that are there, as on a cluster with a broker down; "" if not."""
    new = [topic for topic in wanted if topic.name not in found]
    name, most = max(((name, one.replication) for name, one in found.items()), key=lambda one: one[1], default=("", 0))
    if all(topic.replication >= min(MOST_COPIES, most) for topic in new):
        return ""
    copies = min(topic.replication for topic in new)
    return f"so few brokers are up that new topics would have {copies} copies of each record, while {name} has {most}"


def durability_of(found: Collection[Found]) -> Durability:
    """What a record survives in the weakest of these topics.

    REPLICATED asks for three copies of which two are in sync; a single copy is FLUSHED where each record is flushed.
    """
    if found and all(one.replication >= 3 and _number(one, "min.insync.replicas") >= 2 for one in found):
        return Durability.REPLICATED
    if found and all(_number(one, "flush.messages") == 1 for one in found):
        return Durability.FLUSHED
    return Durability.PROCESS


def _partitions(topic: Topic, found: Found) -> list[Difference]:
    if found.partitions >= topic.partitions:
        return []  # more of events are never written to: see EVENTS_PARTITIONS
    text = f"has {found.partitions} partitions, should have {topic.partitions}"
    return [Difference(topic=topic.name, kind=Kind.PARTITIONS, text=text, applicable=True, blocking=topic.fixed)]


def _replication(topic: Topic, found: Found) -> list[Difference]:
    if found.replication >= topic.replication:
        return []
    text = (
        f"has {found.replication} copies of each record, should have {topic.replication}; "
        "kafka-reassign-partitions.sh changes that"
    )
    return [Difference(topic=topic.name, kind=Kind.REPLICATION, text=text, applicable=False)]


def _config(topic: Topic, found: Found, *, but: Collection[str] = ()) -> list[Difference]:
    """`but`: of these settings another difference tells."""
    result = [
        Difference(
            topic=topic.name,
            kind=Kind.CONFIG,
            text=f"{key} is {found.config.get(key)}, should be {value}",
            applicable=True,
        )
        for key, value in changes(topic, found).items()
        if key not in but
    ]
    in_sync = _number(found, "min.insync.replicas")
    if in_sync > found.replication:
        text = (
            f"min.insync.replicas is {in_sync}, with {found.replication} copies: brokers may refuse every record; "
            "kafka-configs.sh lowers it"
        )
        result.append(Difference(topic=topic.name, kind=Kind.CONFIG, text=text, applicable=False))
    return result


def _outlived(topic: Topic, wanted: Sequence[Topic], found: Mapping[str, Found]) -> list[Difference]:
    """Where somebody keeps others for longer than is wanted, and not this one."""
    least = float(topic.config["retention.ms"])
    others = [one for one in wanted if one.name in topic.outlives and one.name in found]
    longer = {one.name: least + _kept_ms(found[one.name]) - float(one.config["retention.ms"]) for one in others}
    name = max(longer, key=longer.__getitem__, default="")
    if not name or longer[name] <= max(least, _kept_ms(found[topic.name])):
        return []
    needed = "-1" if math.isinf(longer[name]) else str(int(longer[name]))
    text = (
        f"retention.ms is {found[topic.name].config.get('retention.ms')}, should be {needed}, since that of {name} is "
        f"{found[name].config.get('retention.ms')}: a rebuild may bring deleted jobs back; kafka-configs.sh changes it"
    )
    return [Difference(topic=topic.name, kind=Kind.CONFIG, text=text, applicable=False)]


def _kept_ms(found: Found) -> float:
    """For how long; for ever where it is -1."""
    kept_ms = _number(found, "retention.ms")
    return math.inf if kept_ms == -1 else float(kept_ms)


def _holds(key: str, value: str | None, wanted: str) -> bool:
    if value is None or key not in FLOORS:
        return value == wanted
    endless = key == "retention.ms" and int(value) == -1
    return endless or int(value) >= int(wanted)


def _in_sync(copies: int) -> str:
    return "2" if copies >= 3 else "1"


def _number(found: Found, key: str) -> int:
    return int(found.config.get(key, "0"))


def _kept_for(retention_s: float) -> Mapping[str, str]:
    return {"retention.ms": _ms(retention_s), "segment.ms": _ms(_segment_s(retention_s))}


def _segment_s(retention_s: float) -> float:
    return min(max(retention_s / SEGMENTS, SEGMENT_LEAST_S), SEGMENT_MOST_S)


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))
