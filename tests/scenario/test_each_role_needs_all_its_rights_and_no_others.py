"""Each role as a user of its own, over SASL_SSL, with the rights that `forebay topics acls` prints: it does its work,
is refused nothing, and makes use of every right."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType  # admin does not export these
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType  # as above
from msgspec import Struct
from tests.scenario.conftest import Client, Roles, until

from dev.kafka.secure import SecureBroker
from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]

ROLES = ("api", "projector", "scheduler", "webhooks", "worker")
SERVED = "flaky"
UNSERVED = "echo"
LINES = 20
LENGTH = f'forebay_queue_depth{{lane="normal",model="{SERVED}"}}'
AUDITED = re.compile(
    r"Principal = User:forebay-(\w+) is (Allowed|Denied) operation = (\w+) .* resource = (\w+):\w+:(\S+)"
)
"""What the broker's authorizer notes of a request (StandardAuthorizerData.buildAuditMessage)."""


class Right(Struct, frozen=True):
    """`operation` as Kafka's constant, `resource` TOPIC or GROUP; a name that ends in `*` is of all that begin so."""

    role: str
    operation: str
    resource: str
    name: str

    def covers(self, other: Right) -> bool:
        named = other.name.startswith(self.name[:-1]) if self.name.endswith("*") else other.name == self.name
        return named and (self.role, self.operation, self.resource) == (other.role, other.operation, other.resource)


def kafka_acls() -> argparse.ArgumentParser:
    """As kafka-acls.sh reads its command line (org.apache.kafka.tools.AclCommand), as far as ours goes."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    for option in ("--bootstrap-server", "--command-config", "--allow-principal"):
        parser.add_argument(option, required=True)
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--operation", action="append", required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--topic")
    what.add_argument("--group")
    parser.add_argument("--resource-pattern-type", choices=["literal", "prefixed"], default="literal")
    return parser


def rights(printed: str) -> Iterator[Right]:
    """Of what `forebay topics acls` has printed."""
    for line in printed.splitlines():
        if not (words := shlex.split(line, comments=True)):
            continue
        given = kafka_acls().parse_args(words[1:])
        role = given.allow_principal.removeprefix("User:forebay-")
        for operation in given.operation:
            yield Right(
                role,
                re.sub(r"\B([A-Z])", r"_\1", operation).upper(),
                "TOPIC" if given.topic else "GROUP",
                (given.topic or given.group) + ("*" if given.resource_pattern_type == "prefixed" else ""),
            )


def binding(right: Right) -> AclBinding:
    prefixed = right.name.endswith("*")
    return AclBinding(
        ResourceType[right.resource],
        right.name.removesuffix("*"),
        ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
        f"User:forebay-{right.role}",
        "*",
        AclOperation[right.operation],
        AclPermissionType.ALLOW,
    )


class Realm:
    """Topics and users, as docs/kafka.md has an operator make them; and what the broker noted of their rights."""

    def __init__(self, roles: Roles, broker: SecureBroker) -> None:
        self._roles = roles
        self._broker = broker
        self.rights: list[Right] = []

    def found(self) -> None:
        everyone = self._topics("acls", "api", "projector", "scheduler", "webhooks", "admin")
        self.rights = [*rights(everyone), *rights(self._topics("acls", "worker", "--models", SERVED))]
        self._broker.allow([binding(right) for right in self.rights])
        for role in (*ROLES, "admin"):
            self._broker.add_user(f"forebay-{role}", f"of-{role}")
        self._topics("apply")
        self._topics("apply", "--kafka-partitions", "4", "--kafka-retention-s", "700000")

    def _topics(self, *arguments: str) -> str:
        """What `forebay topics ...` prints; it asks the broker as the admin."""
        done = self._roles.command("topics", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def spawn(self, role: str, **settings: str) -> RunningService:
        return self._roles.spawn(role, **login(role), **settings)

    def audited(self, verdict: str) -> set[Right]:
        """Each right that was asked for and `Allowed` or `Denied`."""
        lines = self._broker.log_file.read_text(errors="replace").splitlines()
        found = [match.groups() for line in lines if (match := AUDITED.search(line))]
        return {
            Right(role, operation, resource.upper(), name)
            for role, said, operation, resource, name in found
            if said == verdict
        }

    def write(self, topic: str, value: bytes) -> None:
        """As nobody of ours would."""
        failures: list[object] = []
        producer = Producer({**self._broker.client, "log_level": 0})
        producer.produce(f"{self._roles.prefix}.{topic}", value, on_delivery=lambda error, _: failures.append(error))
        producer.flush(30.0)
        assert failures == [None]


def login(role: str) -> Mapping[str, str]:
    return {"kafka_username": f"forebay-{role}", "kafka_password": f"of-{role}"}


@pytest.fixture
def realm(tmp_path: Path, secure_kafka: SecureBroker, postgres_dsn: str) -> Iterator[Realm]:
    roles = Roles(tmp_path, secure_kafka.bootstrap, postgres_dsn, (SERVED, UNSERVED))
    roles.settings |= {
        "kafka_security": "sasl_ssl",
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_ca_file": str(secure_kafka.certificates.ca_file),
        **login("admin"),
    }
    try:
        realm = Realm(roles, secure_kafka)
        realm.found()
        yield realm
    finally:
        roles.kill()


def test_each_role_does_its_work_is_refused_nothing_and_needs_all_that_it_may(
    realm: Realm, client_of: ClientOf
) -> None:
    running = {role: realm.spawn(role) for role in ROLES if role != "worker"}
    running["worker"] = realm.spawn("worker", models=SERVED)
    for process in running.values():
        process.wait_ready()
    do_everything(realm, client_of(running["api"]))
    for process in running.values():
        tells_how_many_wait(process)
    until(lambda: unused(realm) == [], "each right was asked for, and the broker has noted it")
    assert realm.audited("Denied") == set()
    logs = [(role, line) for role, process in running.items() for line in process.log_file.read_text().splitlines()]
    assert [(role, line) for role, line in logs if "authoriz" in line.lower()] == []


def do_everything(realm: Realm, api: Client) -> None:
    again, unwanted = api.submit(SERVED, {"fail": 1}), api.submit(SERVED, {"fail": 1})
    late = api.submit(UNSERVED, 1, start_within_s=0.5)  # of which only the scheduler takes notice
    until(lambda: put_off(api.job(unwanted)), "it waits for its next attempt")
    assert api.http.post(f"/v1/jobs/{unwanted}/cancel").json()["status"] == "canceled"
    lines = "".join(f"{json.dumps({'input': {'fail': 0}, 'model': SERVED})}\n" for _ in range(LINES))
    answer = api.http.post("/v1/batches", content=lines, headers={"content-type": "application/x-ndjson"})
    assert answer.status_code == 202, answer.text
    broken = api.submit(SERVED, {"fail": "no number"})
    realm.write("retry.5s", b"nobody's")
    assert api.final(broken)["status"] == "failed"
    letter = api.http.get(f"/v1/dead-letters/{broken}")
    assert letter.status_code == 200, letter.text
    assert letter.json()["headers"]["content-type"] == "application/json"
    told = api.submit(SERVED, {"fail": 0}, webhook={"url": "https://receiver.invalid"})
    assert api.final(told)["status"] == "succeeded"
    deliveries = f"/v1/jobs/{told}/deliveries"
    until(lambda: api.http.get(deliveries).json()["deliveries"][0]["tries_total"] == 1, "nobody was found")
    assert api.final(late)["status"] == "expired"
    assert (api.final(again)["status"], api.final(again)["attempts"]) == ("succeeded", 2)
    batch = f"/v1/batches/{answer.json()['id']}"
    until(lambda: "finished_at" in api.http.get(batch).json(), "the batch is finished")
    assert api.http.get(batch).json()["counts"]["succeeded"] == LINES


def put_off(job: Mapping[str, Any]) -> bool:
    return (job["attempts"], job["status"]) == (1, "queued")


def tells_how_many_wait(process: RunningService) -> None:
    until(
        lambda: f"{LENGTH} " in httpx2.get(f"{process.admin_url}/metrics").text,
        f"/metrics of {process.log_file.parent.name} tells how many jobs wait",
    )


def unused(realm: Realm) -> Sequence[Right]:
    used = realm.audited("Allowed")
    return [right for right in realm.rights if not any(right.covers(one) for one in used)]
