"""One broker and its ZooKeeper."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from dev.kafka.broker import Server, replication
from dev.kafka.install import KAFKA_WITH_ZOOKEEPER
from dev.kafka.java_process import BrokerFailed, JavaProcess
from dev.kafka.ports import HOST, free_port

HEAP_MIB = 128
ANSWER_WITHIN_S = 1.0
FORGOTTEN_POLL_S = 0.1
SESSION_S = 4
"""ZooKeeper forgets a killed broker after this time, and lets no other with its id in before. Two ticks, the least."""


class ZooKeeper(JavaProcess):
    def __init__(self, folder: Path) -> None:
        super().__init__(KAFKA_WITH_ZOOKEEPER, folder, HEAP_MIB)
        self.port = free_port()

    def knows(self, path: str) -> bool:
        """Whether an ephemeral node with this path exists, whose owner is alive or was a moment ago."""
        return f"\t{path}\n" in self._ask("dump")

    def _arguments(self) -> Sequence[str]:
        settings = {
            "dataDir": str(self.folder / "data"),
            "clientPort": str(self.port),
            "clientPortAddress": HOST,
            "maxClientCnxns": "0",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "srvr,dump",
        }
        properties = self.folder / "zookeeper.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return ["org.apache.zookeeper.server.quorum.QuorumPeerMain", str(properties)]

    def _is_ready(self) -> bool:
        return self._ask("srvr").startswith("Zookeeper version")

    def _ask(self, word: str) -> str:
        """Its answer to a four letter word; empty when it gives none."""
        with (
            contextlib.suppress(OSError),  # it does not listen yet
            socket.create_connection((HOST, self.port), ANSWER_WITHIN_S) as connection,
            connection.makefile("r") as answer,
        ):
            connection.sendall(word.encode())
            return answer.read()
        return ""


class OldBroker(Server):
    """`kill`, `stop` and `bounce` are for the broker alone; its ZooKeeper starts before it and ends with `close`."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.node_id = 1
        self.bootstrap = f"{HOST}:{free_port()}"
        self.zookeeper = ZooKeeper(folder / "zookeeper")
        own = {
            "broker.id": str(self.node_id),
            "listeners": f"PLAINTEXT://{self.bootstrap}",
            "zookeeper.connect": f"{HOST}:{self.zookeeper.port}",
            "zookeeper.session.timeout.ms": str(SESSION_S * 1000),
            **replication(1),
        }
        super().__init__(folder, {**own, **(settings or {})}, None, KAFKA_WITH_ZOOKEEPER)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def spawn(self) -> None:
        """Waits for ZooKeeper to be ready and, after a `kill`, to forget the broker that was."""
        assert self.gone, "it is running"
        if self.zookeeper.gone:
            self.zookeeper.start()
        deadline = time.monotonic() + 4 * SESSION_S
        while self.zookeeper.knows(f"/brokers/ids/{self.node_id}"):
            if time.monotonic() > deadline:
                raise BrokerFailed(f"ZooKeeper still holds its session:\n{self.zookeeper.log_tail()}")
            time.sleep(FORGOTTEN_POLL_S)
        super().spawn()

    def close(self) -> None:
        """SIGKILL to both."""
        self.kill()
        self.zookeeper.kill()

    def _is_ready(self) -> bool:
        return self.answers(self.bootstrap, self.node_id)
