"""What a role may do, as data and as command lines. That it is enough, and no more, is tried on a real broker."""

from __future__ import annotations

import shlex

import pytest
from confluent_kafka.admin._acl import AclOperation  # admin does not export it
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from forebay.adapters.kafka.acls import Acl, Role, acls
from forebay.adapters.kafka.names import Names

NAMES = Names("f")


def operations(role: Role, resource: str, name: str) -> set[str]:
    """What the role may do with this topic or group."""
    return {
        operation
        for acl in acls(role, NAMES, ["m", "other"])
        if acl.resource == resource and (name == acl.name or (acl.prefixed and name.startswith(acl.name)))
        for operation in acl.operations
    }


@pytest.mark.parametrize(
    ("role", "may_read", "may_write"),
    [
        (Role.API, {"requests.m.low", "control"}, {"requests.m.low", "events", "control"}),
        (Role.WORKER, {"requests.m.low", "control"}, {"events", "control", "retry.5s", "dlq"}),
        (Role.PROJECTOR, {"requests.m.low", "events"}, set()),
        (Role.SCHEDULER, {"retry.5s"}, {"requests.m.low", "events", "control", "dlq"}),
        (Role.ADMIN, set(), set()),
    ],
)
def test_who_reads_and_writes_what(role: Role, may_read: set[str], may_write: set[str]) -> None:
    topics = ["requests.m.low", "events", "control", "retry.5s", "dlq"]
    assert {topic for topic in topics if "Read" in operations(role, "topic", f"f.{topic}")} == may_read
    assert {topic for topic in topics if "Write" in operations(role, "topic", f"f.{topic}")} == may_write


@pytest.mark.parametrize("role", Role)
def test_only_the_admin_changes_topics(role: Role) -> None:
    changes = {"Create", "Alter", "AlterConfigs"} & operations(role, "topic", "f.requests.m.low")
    assert bool(changes) == (role is Role.ADMIN)
    assert not {"Delete", "All"} & operations(role, "topic", "f.requests.m.low")


@pytest.mark.parametrize(
    ("role", "groups"),
    [
        (Role.WORKER, {"f.m.low", "f.other.high"}),
        (Role.PROJECTOR, {"f.projector"}),
        (Role.SCHEDULER, {"f.scheduler"}),
        (Role.API, set()),
        (Role.ADMIN, set()),
    ],
)
def test_each_joins_its_own_groups_only(role: Role, groups: set[str]) -> None:
    names = ["f.m.low", "f.other.high", "f.unknown.low", "f.projector", "f.scheduler"]
    assert {name for name in names if "Read" in operations(role, "group", name)} == groups


def test_nothing_outside_of_the_prefix_is_allowed() -> None:
    for role in Role:
        assert all(acl.name.startswith("f.") for acl in acls(role, NAMES, ["m"]))


def test_a_command_line_can_be_pasted() -> None:
    acl = Acl("topic", "f.requests.", ("Read", "DescribeConfigs"), "", prefixed=True)
    assert shlex.split(acl.command("User:CN=the worker", "b:9092")) == [
        *["kafka-acls.sh", "--bootstrap-server", "b:9092", "--command-config", "admin.properties", "--add"],
        *["--allow-principal", "User:CN=the worker", "--operation", "Read", "--operation", "DescribeConfigs"],
        *["--topic", "f.requests.", "--resource-pattern-type", "prefixed"],
    ]


def test_a_literal_name_is_the_default_pattern() -> None:
    assert "--resource-pattern-type" not in Acl("group", "f.projector", ("Read",), "").command("User:p")


def test_bindings_say_the_same() -> None:
    first, second = Acl("topic", "f.requests.", ("Read", "DescribeConfigs"), "", prefixed=True).bindings("User:w")
    assert (first.operation, second.operation) == (AclOperation.READ, AclOperation.DESCRIBE_CONFIGS)
    assert (first.restype, first.resource_pattern_type) == (ResourceType.TOPIC, ResourcePatternType.PREFIXED)
    assert (first.name, first.principal, first.host) == ("f.requests.", "User:w", "*")
