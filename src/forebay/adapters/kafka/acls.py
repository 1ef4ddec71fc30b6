"""What each role may do on the brokers, and no more: as data, as `kafka-acls.sh` command lines, as bindings.

For brokers with an authorizer. READ and WRITE include DESCRIBE (org.apache.kafka.security.authorizer); an idempotent
producer needs nothing beyond WRITE since Kafka 2.8 (KIP-679).
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from enum import StrEnum

from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType  # admin does not export these
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from msgspec import Struct

from forebay.adapters.kafka.names import Names


class Role(StrEnum):
    API = "api"
    WORKER = "worker"
    PROJECTOR = "projector"
    SCHEDULER = "scheduler"
    WEBHOOKS = "webhooks"
    ADMIN = "admin"


class Acl(Struct, frozen=True):
    """`resource` is topic or group; `prefixed`: every name that begins with `name`. `why` is for people."""

    resource: str
    name: str
    operations: tuple[str, ...]
    why: str
    prefixed: bool = False

    def command(self, principal: str, bootstrap: str = "$BOOTSTRAP") -> str:
        """For a shell, with the administrator's own settings in admin.properties."""
        parts = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--command-config", "admin.properties", "--add"]
        parts += ["--allow-principal", principal]
        for operation in self.operations:
            parts += ["--operation", operation]
        parts += [f"--{self.resource}", self.name]
        if self.prefixed:
            parts += ["--resource-pattern-type", "prefixed"]
        return " ".join(part if part.startswith("$") else shlex.quote(part) for part in parts)

    def bindings(self, principal: str) -> list[AclBinding]:
        """For `AdminClient.create_acls`."""
        pattern = ResourcePatternType.PREFIXED if self.prefixed else ResourcePatternType.LITERAL
        return [
            AclBinding(
                ResourceType[self.resource.upper()],
                self.name,
                pattern,
                principal,
                "*",
                AclOperation[_constant(operation)],
                AclPermissionType.ALLOW,
            )
            for operation in self.operations
        ]


def acls(role: Role, names: Names, models: Collection[str]) -> list[Acl]:
    """What this role needs for these models.

    Each looks at all topics when it starts: whether they are there, and what a record in them survives.
    """
    look = Acl("topic", f"{names.prefix}.", ("Describe", "DescribeConfigs"), "checks the topics", prefixed=True)
    return [look, *_RULES[role](names, sorted(models))]


def _api(names: Names, models: Collection[str]) -> list[Acl]:
    return [
        Acl(
            "topic",
            names.requests_prefix,
            ("Read", "Write"),
            "submits jobs, reads again what is retried",
            prefixed=True,
        ),
        Acl("topic", names.events_topic, ("Write",), "cancels jobs"),
        Acl("topic", names.control_topic, ("Read", "Write"), "sees the workers, tells them what was canceled"),
        Acl("group", names.control_group, ("Describe",), "is asked for, and never joined"),
        Acl("group", names.lookup_group, ("Describe",), "is asked for, and never joined"),
        *_waiting(names, models),
    ]


def _worker(names: Names, models: Collection[str]) -> list[Acl]:
    return [
        Acl("topic", names.requests_prefix, ("Read",), "receives jobs", prefixed=True),
        *_groups(names, models, ("Read",), "shares them with other workers"),
        Acl("topic", names.events_topic, ("Write",), "says how jobs ended"),
        Acl("topic", names.retry_prefix, ("Write",), "puts a failed attempt off", prefixed=True),
        Acl("topic", names.dlq_topic, ("Write",), "leaves dead letters"),
        Acl("topic", names.control_topic, ("Read", "Write"), "hears what was canceled, reports its models"),
        Acl("group", names.control_group, ("Describe",), "is asked for, and never joined"),
    ]


def _projector(names: Names, models: Collection[str]) -> list[Acl]:
    return [
        Acl("topic", names.requests_prefix, ("Read",), "reads the log", prefixed=True),
        Acl("topic", names.events_topic, ("Read",), "reads the log"),
        Acl("group", names.projector_group, ("Read",), "shares it with other projectors"),
        *_waiting(names, models),
    ]


def _scheduler(names: Names, models: Collection[str]) -> list[Acl]:
    return [
        Acl("topic", names.retry_prefix, ("Read",), "finds what is due", prefixed=True),
        Acl("group", names.scheduler_group, ("Read",), "shares it with other schedulers"),
        Acl("topic", names.requests_prefix, ("Write",), "brings back what is due", prefixed=True),
        Acl("topic", names.events_topic, ("Write",), "ends jobs whose time is over, or that it cannot bring back"),
        Acl("topic", names.control_topic, ("Write",), "asks the brokers for their time"),
        Acl("topic", names.dlq_topic, ("Write",), "leaves what it cannot bring back"),
        *_waiting(names, models),
    ]


def _webhooks(names: Names, models: Collection[str]) -> list[Acl]:
    return [
        Acl("topic", names.events_topic, ("Write",), "says what became of deliveries"),
        Acl("topic", names.control_topic, ("Write",), "asks the brokers for their time"),
        *_waiting(names, models),
    ]


def _admin(names: Names, models: Collection[str]) -> list[Acl]:
    operations = ("Create", "Alter", "AlterConfigs")
    return [Acl("topic", f"{names.prefix}.", operations, "creates and changes topics", prefixed=True)]


def _waiting(names: Names, models: Collection[str]) -> list[Acl]:
    """Of whoever is no worker: each process has `/metrics`, and each of them says how long the lanes are."""
    return _groups(names, models, ("Describe",), "tells how many jobs wait")


def _groups(names: Names, models: Collection[str], operations: tuple[str, ...], why: str) -> list[Acl]:
    """Of each model's lanes; not `<prefix>.` as a whole, which would be the projectors' as well."""
    return [Acl("group", f"{names.prefix}.{model}.", operations, why, prefixed=True) for model in models]


_RULES = {
    Role.API: _api,
    Role.WORKER: _worker,
    Role.PROJECTOR: _projector,
    Role.SCHEDULER: _scheduler,
    Role.WEBHOOKS: _webhooks,
    Role.ADMIN: _admin,
}


def _constant(operation: str) -> str:
    """DescribeConfigs -> DESCRIBE_CONFIGS"""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).strip("_").upper()
