"""Apache Kafka without ZooKeeper (KRaft): one broker, or a cluster whose brokers can be killed one by one."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from dev.kafka.install import KAFKA, Distribution
from dev.kafka.java_process import QUICK, BrokerFailed, JavaProcess
from dev.kafka.ports import HOST, free_port

HEAP_MIB = 384
CONTROLLER_HEAP_MIB = 128
CONTROLLER_ID = 100
ANSWER_WITHIN_S = 0.5
FORMAT_WITHIN_S = 60

# Quick for tests, otherwise as Kafka comes. Kafka ignores keys that it does not know, so 3.9 gets the same.
SETTINGS: Final[Mapping[str, str]] = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # A killed member is noticed within 6 s instead of 45; classic members choose for themselves.
    "group.consumer.min.session.timeout.ms": "3000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1000",
    # A killed broker is noticed within 3 s instead of 9.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Few threads and small buffers: several brokers share two cores.
    "num.network.threads": "2",
    "num.io.threads": "2",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
}


def replication(brokers: int) -> dict[str, str]:
    """Kafka's own topics, and those created without a wish, in as many copies as there are brokers, at most three. All
    but one must be in sync for acks=all."""
    copies, in_sync = str(min(brokers, 3)), str(max(1, min(brokers, 3) - 1))
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


@dataclass(frozen=True, slots=True)
class Quorum:
    """The one controller of a cluster, or of a broker that is its own."""

    controller_id: int
    controller_port: int = field(default_factory=free_port)
    # 16 bytes, as Kafka's own; a leading "-" would look like an option to the formatter.
    cluster_id: str = field(default_factory=lambda: "K" + secrets.token_urlsafe(16)[1:])

    @property
    def listener(self) -> str:
        return f"CONTROLLER://{HOST}:{self.controller_port}"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "controller.quorum.voters": f"{self.controller_id}@{HOST}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        }


class Server(JavaProcess):
    """A process of Kafka that reads server.properties. `settings` go before ours.

    quorum None: a server that keeps its metadata in ZooKeeper, so that there is nothing to format.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        quorum: Quorum | None,
        distribution: Distribution = KAFKA,
        heap_mib: int = HEAP_MIB,
        java_options: Sequence[str] = QUICK,
    ) -> None:
        super().__init__(distribution, folder, heap_mib, java_options)
        self._properties = folder / "server.properties"
        data = folder / "data"
        self._meta = data / "meta.properties"  # written by the formatter, with ZooKeeper by the broker
        self._quorum = quorum
        own = quorum.settings if quorum else {}
        self._settings = {"log.dir": str(data), **SETTINGS, **own, **settings}

    def _arguments(self) -> Sequence[str]:
        lines = [f"{key}={value}\n" for key, value in self._settings.items()]
        self._properties.write_text("".join(lines))
        if self._quorum and not self._meta.exists():
            self._format(self._quorum.cluster_id)
        return ["kafka.Kafka", str(self._properties)]

    @property
    def partitions(self) -> int:
        """How many it holds, Kafka's own included."""
        return sum(entry.is_dir() for entry in os.scandir(self._meta.parent))

    def answers(self, bootstrap: str, node_id: int, client: Mapping[str, str | int | float] | None = None) -> bool:
        """Whether metadata comes from this address, names the broker, and is of the cluster in our folder: another
        server that has the port does not count. `client`: what librdkafka needs to be let in."""
        # log_level 0: a refused connection is expected here, librdkafka would print it.
        quick: dict[str, str | int | float] = {
            "bootstrap.servers": bootstrap,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,
        }
        admin = AdminClient({**quick, **(client or {})})
        try:
            metadata = admin.list_topics(timeout=ANSWER_WITHIN_S)
        except KafkaException:
            return False
        facts = self._meta.read_text().splitlines() if self._meta.exists() else []
        return f"cluster.id={metadata.cluster_id}" in facts and node_id in metadata.brokers

    def _format(self, cluster_id: str) -> None:
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self._properties))
        with open(self.log_file, "ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, timeout=FORMAT_WITHIN_S)
        if done.returncode:
            raise BrokerFailed(f"its folder could not be formatted:\n{self.log_tail()}")


class Broker(Server):
    """Ready means that it answers metadata and is part of it: an open port says nothing.

    Alone, it is its own controller, and its port is a free one unless given. Everything listens on 127.0.0.1 only.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        node_id: int = 1,
        quorum: Quorum | None = None,
        heap_mib: int = HEAP_MIB,
        java_options: Sequence[str] = QUICK,
    ) -> None:
        self.node_id = node_id
        self.bootstrap = f"{HOST}:{port or free_port()}"
        quorum = quorum or Quorum(node_id)
        listener = f"PLAINTEXT://{self.bootstrap}"
        alone = quorum.controller_id == node_id
        own = {
            "node.id": str(node_id),
            "process.roles": "broker,controller" if alone else "broker",
            "listeners": f"{listener},{quorum.listener}" if alone else listener,
            "advertised.listeners": listener,
            **replication(1),
        }
        super().__init__(folder, {**own, **(settings or {})}, quorum, heap_mib=heap_mib, java_options=java_options)

    def _is_ready(self) -> bool:
        return self.answers(self.bootstrap, self.node_id)


class Controller(Server):
    """Keeps the metadata of a cluster and no data. Its brokers tell whether it is ready."""

    def __init__(self, folder: Path, quorum: Quorum, settings: Mapping[str, str]) -> None:
        own = {"node.id": str(quorum.controller_id), "process.roles": "controller", "listeners": quorum.listener}
        super().__init__(folder, {**own, **settings}, quorum, heap_mib=CONTROLLER_HEAP_MIB)

    def _is_ready(self) -> bool:
        return True


class Cluster:
    """Brokers 1 to n, and a controller of their own beside them: whichever brokers die, what a client then sees is
    replication at work and not a lost quorum."""

    def __init__(self, folder: Path, *, brokers: int = 3, settings: Mapping[str, str] | None = None) -> None:
        quorum = Quorum(CONTROLLER_ID)
        shared = {**replication(brokers), **(settings or {})}
        self.controller = Controller(folder / "controller", quorum, shared)
        self.brokers = [
            Broker(folder / f"broker-{node_id}", node_id=node_id, settings=shared, quorum=quorum)
            for node_id in range(1, brokers + 1)
        ]
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, timeout_s: float = 90.0) -> None:
        """Start whatever is not running, and wait until every broker is ready. Raises BrokerFailed."""
        down = [server for server in (self.controller, *self.brokers) if server.gone]
        with ThreadPoolExecutor(len(down) or 1) as pool:
            list(pool.map(Server.spawn, down))
        for broker in self.brokers:
            broker.wait_ready(timeout_s)

    @property
    def partitions(self) -> int:
        """How many the first of its brokers holds: as many as each, where copies are as many as brokers."""
        return self.brokers[0].partitions

    @property
    def gone(self) -> bool:
        """One of its servers has ended."""
        return any(server.gone for server in (self.controller, *self.brokers))

    def broker(self, node_id: int) -> Broker:
        return self.brokers[node_id - 1]

    def kill(self) -> None:
        """SIGKILL to all; returns when they are gone."""
        for server in (*self.brokers, self.controller):
            server.kill()
