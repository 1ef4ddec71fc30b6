"""Who died of itself is told from who was killed, however it is noticed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import cast

import pytest

from chaos import nemesis as module
from chaos.cluster import Role, ServiceCluster, Shape
from chaos.history import DEATH, Records
from chaos.nemesis import Nemesis
from chaos.storms.embedded import EmbeddedStorm
from forebay.testing.service import RunningService

PID = 7


class Service:
    """A process that is only said to be there."""

    pid = PID

    def __init__(self, *, gone: bool) -> None:
        self.gone = gone

    def kill(self) -> None:
        self.gone = True

    def spawn(self) -> None:
        self.gone = False

    def wait_ready(self, timeout_s: float) -> None: ...


def worker(cluster: ServiceCluster, *, gone: bool) -> Role:
    """The only role of this cluster."""
    role = cluster.roles[0]
    role.service = cast("RunningService", Service(gone=gone))
    cluster.roles = [role]
    return role


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceCluster:
    monkeypatch.setattr(module, "DOWN_AT_MOST_S", 0.0)
    monkeypatch.setattr(module, "KEEPER_TURN_S", 0.0)
    return ServiceCluster(tmp_path, queue="kafka://none:1", store="sqlite://", prefix="storm", shape=Shape())


@pytest.mark.parametrize(("gone", "kind"), [(False, "kill"), (True, DEATH)], ids=["alive", "dead"])
async def test_whoever_is_dead_before_its_kill_died_of_itself(gone: bool, kind: str, cluster: ServiceCluster) -> None:
    records = Records()
    await Nemesis(cluster, records, random.Random(1)).kill(worker(cluster, gone=gone))
    assert [(fault.kind, fault.pid) for fault in records.faults] == [(kind, PID)]


async def test_the_keeper_writes_down_whom_it_starts_again(cluster: ServiceCluster) -> None:
    records = Records()
    role = worker(cluster, gone=True)
    keeper = asyncio.create_task(Nemesis(cluster, records, random.Random(1)).keep())
    async with asyncio.timeout(5):
        while role.gone or role.taken:  # noqa: ASYNC110 - started in another thread
            await asyncio.sleep(0)
    keeper.cancel()
    await asyncio.wait([keeper])
    assert [(fault.kind, fault.pid) for fault in records.faults] == [(DEATH, PID)]


@pytest.mark.parametrize(("gone", "kind"), [(False, "kill"), (True, DEATH)], ids=["alive", "dead"])
def test_the_embedded_service_can_die_of_itself_too(gone: bool, kind: str, tmp_path: Path) -> None:
    storm = EmbeddedStorm(tmp_path, rounds=1, seed=1, synchronous="normal")
    storm._service = cast("RunningService", Service(gone=gone))
    storm._kill()
    assert [(fault.kind, fault.pid) for fault in storm._records.faults] == [(kind, PID)]
