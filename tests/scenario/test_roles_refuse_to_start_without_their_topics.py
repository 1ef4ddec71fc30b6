"""Topics are created by `forebay topics apply`, and by nothing else."""

from __future__ import annotations

import json

import pytest
from tests.scenario.conftest import Roles, StartRoles

from forebay.testing.service import ServiceFailed

pytestmark = pytest.mark.scenario


@pytest.fixture
def bare(roles_on_kafka: StartRoles) -> Roles:
    roles = roles_on_kafka("echo")
    roles.settings["kafka_prefix"] = f"{roles.prefix}-bare"
    return roles


@pytest.mark.parametrize("role", ["api", "worker", "projector", "scheduler", "webhooks"])
def test_a_role_says_which_command_creates_them(bare: Roles, role: str) -> None:
    with pytest.raises(ServiceFailed, match="forebay topics apply"):
        bare.start(role)


def test_the_doctor_tells_of_brokers_and_topics(bare: Roles) -> None:
    sick = bare.command("doctor", "--json")
    found = {finding["about"]: finding for finding in json.loads(sick.stdout)}
    assert (found["Kafka"]["state"], found["topics"]["state"]) == ("ok", "wrong")
    assert found["topics"]["fix"].endswith("topics apply")
    bare.apply_topics()
    found = {finding["about"]: finding for finding in json.loads(bare.command("doctor", "--json").stdout)}
    assert (found["Kafka"]["state"], found["topics"]["state"]) == ("ok", "ok")
    bare.settings["queue"] = "kafka://127.0.0.1:1"
    found = {finding["about"]: finding for finding in json.loads(bare.command("doctor", "--json").stdout)}
    assert (found["Kafka"]["state"], "topics" in found) == ("wrong", False)


def test_the_plan_says_what_is_missing_and_apply_leaves_nothing_to_plan(bare: Roles) -> None:
    plan = bare.command("topics", "plan")
    assert f"{bare.prefix}-bare.events" in plan.stdout
    assert plan.returncode == 1, "something is to be done"
    bare.apply_topics()
    again = bare.command("topics", "plan")
    assert (again.returncode, again.stderr) == (0, "")
