"""Which topics a set of models needs, and how what is there may differ."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from forebay.adapters.kafka.forwarder import JITTER
from forebay.adapters.kafka.layout import (
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
from forebay.adapters.kafka.names import EVENTS_PARTITIONS, RETRY_TIERS_S, Names
from forebay.adapters.kafka.topics import _Look
from forebay.core.errors import Misconfigured
from forebay.ports.queue import Durability

NAMES = Names("f")
BROKERS_LOOK_EVERY_MS = 300_000  # log.retention.check.interval.ms, as Kafka comes


def topics(brokers: int = 3, **wishes: Any) -> dict[str, Topic]:
    return {topic.name: topic for topic in desired(NAMES, ["b", "a.x"], TopicWishes(**wishes), brokers)}


def as_wanted(**wishes: Any) -> dict[str, Found]:
    return {
        topic.name: Found(partitions=topic.partitions, replication=topic.replication, config=topic.config)
        for topic in topics(**wishes).values()
    }


def with_retention(found: Found, retention_ms: str) -> Found:
    return replace(found, config={**found.config, "retention.ms": retention_ms})


def test_each_model_has_a_topic_for_each_lane_and_the_rest_is_shared() -> None:
    assert sorted(topics()) == [
        "f.control",
        "f.dlq",
        "f.events",
        *[f"f.requests.{model}.{lane}" for model in ("a.x", "b") for lane in ("high", "low", "normal")],
        "f.retry.30s",
        "f.retry.5m",
        "f.retry.5s",
    ]


def test_partitions_follow_the_wishes_but_for_events_and_control() -> None:
    wanted = topics(requests_partitions=5, retry_partitions=2, dlq_partitions=3)
    assert wanted["f.requests.b.low"].partitions == 5
    assert wanted["f.events"].partitions == EVENTS_PARTITIONS == 32
    assert wanted["f.control"].partitions == 1
    assert wanted["f.retry.5m"].partitions == 2
    assert wanted["f.dlq"].partitions == 3


@pytest.mark.parametrize(
    ("brokers", "wish", "copies", "in_sync"),
    [(1, None, 1, "1"), (2, None, 2, "1"), (3, None, 3, "2"), (7, None, 3, "2"), (7, 5, 5, "2"), (3, 1, 1, "1")],
)
def test_three_copies_where_brokers_allow_them(brokers: int, wish: int | None, copies: int, in_sync: str) -> None:
    for topic in topics(brokers, replication=wish).values():
        assert topic.replication == copies
        assert topic.config["min.insync.replicas"] == in_sync


def test_every_topic_has_the_times_of_its_log_and_never_an_unclean_leader() -> None:
    for topic in topics().values():
        assert topic.config["message.timestamp.type"] == "LogAppendTime"
        assert topic.config["unclean.leader.election.enable"] == "false"


def test_dead_letters_are_kept_longer_than_the_log_and_reports_are_compacted() -> None:
    wanted = topics(retention_s=3600.0, dlq_retention_s=7200.0)
    assert {wanted[name].config["retention.ms"] for name in ("f.requests.b.low", "f.retry.5s")} == {"3600000"}
    assert wanted["f.dlq"].config["retention.ms"] == "7200000"
    assert wanted["f.control"].config["cleanup.policy"] == "compact,delete"


@pytest.mark.parametrize(
    ("retention_s", "segment_ms"), [(60.0, 600_000), (7 * 86_400.0, 43_200_000), (365 * 86_400.0, 86_400_000)]
)
def test_no_record_stays_much_longer_than_it_must(retention_s: float, segment_ms: int) -> None:
    """A request that outlives its events would come back with a rebuild."""
    wanted = topics(retention_s=retention_s)
    assert {wanted[name].config["segment.ms"] for name in ("f.requests.b.low", "f.events", "f.retry.5s")} == {
        str(segment_ms)
    }


@pytest.mark.parametrize("retention_s", [60.0, 86_400.0, 7 * 86_400.0, 365 * 86_400.0])
def test_no_request_is_there_without_the_deletion_of_its_job(retention_s: float) -> None:
    """It stays until the last record of its segment may go and a broker has looked; the deletion may be as old."""
    wanted = topics(retention_s=retention_s)
    requests, events = wanted["f.requests.b.low"].config, wanted["f.events"].config
    stays_ms = int(requests["retention.ms"]) + int(requests["segment.ms"]) + BROKERS_LOOK_EVERY_MS
    copy_ms = int(RETRY_TIERS_S["5m"] * (1.0 + JITTER) * 1000)
    assert int(events["retention.ms"]) > stays_ms + copy_ms


def test_who_keeps_requests_longer_is_told_to_keep_events_longer() -> None:
    found = as_wanted()
    found["f.requests.b.low"] = with_retention(found["f.requests.b.low"], "1000000000")
    found["f.events"] = with_retention(found["f.events"], "604800000")  # of a version that kept them for less
    [difference] = differences(list(topics().values()), found)
    assert difference.text.startswith("retention.ms is 604800000, should be 1129600000")
    to_configure = _Look(list(topics().values()), found).to_configure()
    assert to_configure == {"f.events": {"retention.ms": "734400000"}}, "apply goes as far as it may"
    found["f.events"] = with_retention(found["f.events"], "734400000")
    [difference] = differences(list(topics().values()), found)
    assert (difference.topic, difference.kind, difference.applicable) == ("f.events", Kind.CONFIG, False)
    assert difference.text.startswith("retention.ms is 734400000, should be 1129600000")
    found["f.events"] = with_retention(found["f.events"], "1129600000")
    assert differences(list(topics().values()), found) == []
    found["f.requests.b.low"] = with_retention(found["f.requests.b.low"], "-1")
    [difference] = differences(list(topics().values()), found)
    assert difference.text.startswith("retention.ms is 1129600000, should be -1")
    found["f.events"] = with_retention(found["f.events"], "-1")
    assert differences(list(topics().values()), found) == []


def test_topics_of_a_version_that_left_the_segments_to_the_broker_are_changed() -> None:
    found = as_wanted()
    config = {**found["f.events"].config, "segment.ms": "604800000"}
    found["f.events"] = replace(found["f.events"], config=config)
    [difference] = differences(list(topics().values()), found)
    assert (difference.text, difference.applicable) == ("segment.ms is 604800000, should be 43200000", True)


def test_flushing_is_asked_for_or_left_to_the_broker() -> None:
    assert topics(flush_each=True)["f.events"].config["flush.messages"] == "1"
    assert "flush.messages" not in topics()["f.events"].config


def test_names_that_cannot_be_topics_are_all_told() -> None:
    with pytest.raises(Misconfigured) as caught:
        desired(NAMES, ["m" * 250], TopicWishes(), 1)
    assert len(caught.value.mistakes) == 3


def test_what_is_as_it_should_be_has_no_difference() -> None:
    assert differences(list(topics().values()), as_wanted()) == []


def test_a_missing_topic_stops_a_role() -> None:
    found = as_wanted()
    del found["f.events"]
    [difference] = differences(list(topics().values()), found)
    assert (difference.topic, difference.kind) == ("f.events", Kind.MISSING)
    assert difference.text == "missing; 32 partitions, 3 copies"
    assert difference.applicable
    assert difference.blocking


@pytest.mark.parametrize(
    ("topic", "changes", "kind", "text", "applicable", "blocking"),
    [
        ("f.events", {"partitions": 31}, Kind.PARTITIONS, "has 31 partitions, should have 32", True, True),
        ("f.requests.b.low", {"partitions": 3}, Kind.PARTITIONS, "has 3 partitions, should have 12", True, False),
        ("f.events", {"replication": 2}, Kind.REPLICATION, "has 2 copies of each record, should have 3", False, False),
    ],
)
def test_a_difference_is_told(
    topic: str, changes: dict[str, int], kind: Kind, text: str, applicable: bool, blocking: bool
) -> None:
    found = as_wanted()
    found[topic] = replace(found[topic], **changes)
    [difference] = differences(list(topics().values()), found)
    assert (difference.topic, difference.kind) == (topic, kind)
    assert difference.text.startswith(text)
    assert (difference.applicable, difference.blocking) == (applicable, blocking)


def test_each_setting_that_differs_is_told() -> None:
    found = as_wanted()
    config = {**found["f.dlq"].config, "retention.ms": "1", "message.timestamp.type": "CreateTime"}
    found["f.dlq"] = replace(found["f.dlq"], config=config)
    told = differences(list(topics().values()), found)
    assert {one.text for one in told} == {
        "retention.ms is 1, should be 2592000000",
        "message.timestamp.type is CreateTime, should be LogAppendTime",
    }
    assert all(one.kind is Kind.CONFIG and one.applicable and not one.blocking for one in told)


@pytest.mark.parametrize("changes", [{"partitions": 40}, {"replication": 5}])
def test_more_than_is_wanted_is_no_difference(changes: dict[str, int]) -> None:
    found = as_wanted()
    found["f.events"] = replace(found["f.events"], **changes)
    assert differences(list(topics().values()), found) == []


def test_a_broker_that_is_down_makes_no_topic_less_safe() -> None:
    assert differences(list(topics(brokers=2).values()), as_wanted()) == []


def test_what_must_be_in_sync_follows_the_copies_that_there_are() -> None:
    found = {name: replace(one, replication=1) for name, one in as_wanted(brokers=1).items()}
    assert {one.kind for one in differences(list(topics(brokers=3).values()), found)} == {Kind.REPLICATION}
    found = {name: replace(one, replication=3) for name, one in found.items()}
    told = differences(list(topics(brokers=2).values()), found)
    assert {one.text for one in told} == {"min.insync.replicas is 1, should be 2"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min.insync.replicas", "3"),
        ("retention.ms", "99999999999"),
        ("retention.ms", "-1"),
        ("max.message.bytes", "9999999"),
    ],
)
def test_a_setting_that_somebody_raised_is_left_alone(key: str, value: str) -> None:
    wanted, found = topics()["f.events"], as_wanted()["f.events"]
    found = replace(found, config={**found.config, key: value, "compression.type": "gzip"})
    assert changes(wanted, found) == {"compression.type": "producer"}
    [difference] = differences([wanted], {"f.events": found})
    assert difference.text.startswith("compression.type")


def test_more_in_sync_than_there_are_copies_is_told_and_not_lowered() -> None:
    wanted, found = topics(brokers=1)["f.events"], as_wanted(brokers=1)["f.events"]
    found = replace(found, config={**found.config, "min.insync.replicas": "2"})
    [difference] = differences([wanted], {"f.events": found})
    assert difference.text.startswith("min.insync.replicas is 2, with 1 copies")
    assert not difference.applicable


def test_new_topics_with_fewer_copies_than_ours_have_are_a_risk() -> None:
    found = as_wanted()
    assert copies_at_risk(list(topics(brokers=2).values()), found) == ""
    del found["f.dlq"]
    risk = copies_at_risk(list(topics(brokers=2).values()), found)
    assert "would have 2 copies of each record" in risk
    assert copies_at_risk(list(topics(brokers=3).values()), found) == ""
    assert copies_at_risk(list(topics(brokers=2).values()), {}) == ""


REPLICATED = Found(partitions=1, replication=3, config={"min.insync.replicas": "2"})
FLUSHED = Found(partitions=1, replication=1, config={"min.insync.replicas": "1", "flush.messages": "1"})
PLAIN = Found(partitions=1, replication=1, config={"min.insync.replicas": "1", "flush.messages": "9223372036854775807"})


@pytest.mark.parametrize(
    ("found", "durability"),
    [
        ([REPLICATED], Durability.REPLICATED),
        ([replace(REPLICATED, replication=5)], Durability.REPLICATED),
        ([replace(REPLICATED, config={"min.insync.replicas": "1"})], Durability.PROCESS),
        ([replace(REPLICATED, replication=2)], Durability.PROCESS),
        ([FLUSHED], Durability.FLUSHED),
        ([PLAIN], Durability.PROCESS),
        ([REPLICATED, PLAIN], Durability.PROCESS),
        ([REPLICATED, FLUSHED], Durability.PROCESS),
        ([], Durability.PROCESS),
    ],
)
def test_durability_is_that_of_the_weakest_topic(found: list[Found], durability: Durability) -> None:
    assert durability_of(found) is durability
