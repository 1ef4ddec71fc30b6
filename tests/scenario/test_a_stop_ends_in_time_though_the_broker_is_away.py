"""A role that is told to stop ends within its grace, and says goodbye to a broker only if there is one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from tests.kafka.client import frozen
from tests.scenario.conftest import Client, StartRoles

from dev.kafka.broker import Broker
from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]

WITHIN_S = 20.0
"""Kubernetes kills after 30 s. A quiet machine takes at most 10 s."""

ROLES = ("api", "worker", "projector", "scheduler")


@contextmanager
def killed(broker: Broker) -> Iterator[None]:
    """Its port refuses connections."""
    broker.kill()
    try:
        yield
    finally:
        broker.start()


@pytest.mark.parametrize("away", [killed, frozen])
def test_every_role_ends(
    away: Callable[[Broker], AbstractContextManager[None]],
    roles_on_kafka: StartRoles,
    client_of: ClientOf,
    kafka: Broker,
) -> None:
    roles = roles_on_kafka("echo", "oracle")
    running = [roles.start(role) for role in ROLES]
    api = client_of(running[0])
    for job in [api.submit("echo", n) for n in range(20)]:
        api.final(job)
    with away(kafka):
        for process in running:
            os.kill(process.pid, signal.SIGTERM)
        assert [process.wait(WITHIN_S) for process in running] == [0, 0, 0, 0]
