"""Does the harm, and writes down what was done to whom and for how long. What is chosen comes from the seed."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

from confluent_kafka.admin import AdminClient

from chaos.cluster import READY_WITHIN_S, Role, ServiceCluster
from chaos.groups import Overtaking
from chaos.history import DEATH, Records
from chaos.proxy import Proxy
from dev.kafka.broker import Broker, Cluster

DOWN_AT_MOST_S = 1.0
PAUSE_S = (0.5, 12.0)
"""Up to twice the session timeout of the storms, so that some who wake have lost everything and do not know."""

KEEPER_TURN_S = 0.05
STOP_WITHIN_S = 40.0
METADATA_WITHIN_S = 10.0
EVERYBODY = 0
NO_WORKER = -1
"""`pid` of a fault that no worker feels."""


class Nemesis:
    """Its methods return when what was hit is itself again."""

    def __init__(self, cluster: ServiceCluster, records: Records, rng: random.Random) -> None:
        self._cluster = cluster
        self._records = records
        self._random = rng

    @property
    def requests_topic(self) -> str:
        """The topic that all clients' jobs go to."""
        return f"{self._cluster.prefix}.requests.{self._cluster.shape.oracle.name}.normal"

    @property
    def worker_group(self) -> str:
        """The workers' on that topic."""
        return f"{self._cluster.prefix}.{self._cluster.shape.oracle.name}.normal"

    @property
    def projector_group(self) -> str:
        return f"{self._cluster.prefix}.projector"

    def of(self, *kinds: str) -> list[Role]:
        """The processes of these kinds."""
        return self._cluster.of(*kinds)

    def add(self, kind: str) -> Role:
        """One more process, which `join` starts."""
        role = self._cluster.add(kind)
        role.taken = True
        return role

    # -- processes -------------------------------------------------------------------------------------------------

    async def kill(self, role: Role) -> None:
        """SIGKILL, a moment of absence, and a new start in the same folder. Who is dead already died of itself."""
        role.taken = True
        fault = self._records.begin(DEATH if role.gone else "kill", role.name, role.pid)
        await asyncio.to_thread(role.service.kill)
        await asyncio.sleep(self._random.uniform(0.0, DOWN_AT_MOST_S))
        await self.start(role)
        self._records.end(fault)

    async def pause(
        self,
        role: Role,
        seconds: float | None = None,
        *,
        with_children: bool | None = None,
        meanwhile: Overtaking | None = None,
    ) -> None:
        """SIGSTOP for a random time; every other time its runners stand still too. `meanwhile` is to look on."""
        role.taken = True
        held_s = self._random.uniform(*PAUSE_S) if seconds is None else seconds
        whole = self._random.random() < 0.5 if with_children is None else with_children
        fault = self._records.begin("pause", role.name, role.pid)
        held = role.pause(with_children=whole)
        until = time.monotonic() + held_s
        if meanwhile is not None:
            await meanwhile.watch(until)
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        role.resume(held)
        self._records.end(fault)
        role.taken = False

    async def leave(self, role: Role) -> int:
        """SIGTERM; returns its exit status."""
        role.taken = True
        fault = self._records.begin("leave", role.name, role.pid)
        status = await asyncio.to_thread(role.service.stop, STOP_WITHIN_S)
        self._records.end(fault)
        return status

    async def join(self, role: Role) -> None:
        role.taken = True
        await self.start(role)
        self._records.end(self._records.begin("join", role.name, role.pid))  # it has no pid before

    async def start(self, role: Role) -> None:
        """Nothing to the history: for what was down already. Raises ServiceFailed."""
        role.service.spawn()
        await asyncio.to_thread(role.service.wait_ready, READY_WITHIN_S)
        role.taken = False

    def strike(self, tasks: asyncio.TaskGroup, pauses: float, kind: str = "") -> int:
        """Kill one of the processes (of this kind) that nobody has hold of, or (`pauses` of the times) pause it.
        Returns how many faults that was."""
        free = [role for role in self._cluster.roles if not role.taken and kind in ("", role.kind)]
        if not free:
            return 0
        role = self._random.choice(free)
        tasks.create_task(self.pause(role) if self._random.random() < pauses else self.kill(role))
        role.taken = True
        return 1

    async def keep(self) -> None:
        """Until cancelled: whoever died of itself is started again, and its death is written down."""
        async with asyncio.TaskGroup() as starting:
            while True:
                for role in self._cluster.roles:
                    if not role.taken and role.gone:
                        role.taken = True
                        starting.create_task(self._revive(role))
                await asyncio.sleep(KEEPER_TURN_S)

    async def _revive(self, role: Role) -> None:
        fault = self._records.begin(DEATH, role.name, role.pid)
        await self.start(role)
        self._records.end(fault)

    # -- the store -------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self._cluster.folder

    async def rebuild(self, **settings: str) -> None:
        """Delete the derived tables and fill them anew; of another store if `settings` name one. Raises
        ServiceFailed."""
        fault = self._records.begin("rebuild", settings.get("store", "store"), NO_WORKER)
        await asyncio.to_thread(self._cluster.command, "store", "rebuild", **settings)
        self._records.end(fault)

    # -- brokers ---------------------------------------------------------------------------------------------------

    async def bounce(self, server: Broker, *, hard: bool, away_s: float) -> None:
        """The broker stops (`hard`: is killed), is away, comes back, and is ready when this returns."""
        fault = self._records.begin(f"broker {'hard' if hard else 'clean'}", server.folder.name, EVERYBODY)
        await asyncio.to_thread(server.kill if hard else server.stop)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(server.start)
        self._records.end(fault)

    async def leader(self, brokers: Cluster, topic: str) -> Broker:
        """Who leads most partitions of a topic now. Raises KafkaException."""
        admin = AdminClient({"bootstrap.servers": brokers.bootstrap, "log_level": 0})
        metadata = await asyncio.to_thread(admin.list_topics, topic, METADATA_WITHIN_S)
        leaders = [part.leader for part in metadata.topics[topic].partitions.values() if part.leader > 0]
        return brokers.broker(max(sorted(set(leaders)), key=leaders.count))

    # -- connections -----------------------------------------------------------------------------------------------

    async def cut(self, proxy: Proxy, target: str, how: str, seconds: float) -> None:
        """`how`: cut (refused), stall (silent) or reset (at once whole again). `target` is broker or postgres."""
        pid = EVERYBODY if target == "broker" else NO_WORKER
        fault = self._records.begin(f"{target} {how}", target, pid)
        {"cut": proxy.cut, "stall": proxy.stall, "reset": proxy.reset}[how]()
        if how != "reset":
            await asyncio.sleep(seconds)
            await proxy.heal()
        self._records.end(fault)
