"""What the storms of one run stand on: brokers and a database, each started when first asked for or announced, then
shared.

A storm gives back what it was lent as it found it: running. Names that begin anew (topics, groups, a database) keep the
storms apart.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.kafka.archive import install_with_archive
from dev.kafka.broker import Broker, Cluster
from dev.kafka.zookeeper.broker import OldBroker
from dev.postgres.server import Postgres

Kafka = Broker | OldBroker | Cluster

HASTY = {
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": "1500",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "300",
}
"""A broker that takes members for dead which were silent for 1.5 s, so that many can be paused for longer."""

NO_POWER_CUT = {"fsync": "off"}
"""Storms kill processes: what the kernel was given is there after a restart."""


class Stage:
    """`folder` is for what the brokers keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._starting = ThreadPoolExecutor(thread_name_prefix="stage")
        self._lent: dict[str, Future[Kafka]] = {}
        self._postgres: Postgres | None = None
        self._names = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._starting.shutdown(cancel_futures=True)
        for started in self._lent.values():
            if not started.cancelled() and started.exception() is None:
                self._stack.push(started.result())
        self._stack.close()

    def prepare(self, *kinds: str) -> None:
        """Begin to start these, for whoever asks for them later."""
        for kind in kinds:
            if kind not in self._lent:
                self._lent[kind] = self._starting.submit(self._start, kind)

    def broker(self, kind: str = "one") -> Broker:
        """`one`: the newest Kafka, one broker; `hasty`: the same, which soon takes members for dead."""
        broker = self.kafka(kind)
        assert isinstance(broker, Broker)
        return broker

    def cluster(self) -> Cluster:
        """Three of the newest Kafka and a controller."""
        cluster = self.kafka("three")
        assert isinstance(cluster, Cluster)
        return cluster

    def old_broker(self) -> OldBroker:
        """Kafka 3.9 with ZooKeeper."""
        broker = self.kafka("old")
        assert isinstance(broker, OldBroker)
        return broker

    def kafka(self, kind: str) -> Kafka:
        """Any of them: one, hasty, three, old."""
        self.prepare(kind)
        return self._lent[kind].result()

    def postgres(self) -> Postgres:
        if self._postgres is None:
            # Not in our folder, which is ours only: root's server runs as another user.
            folder = Path(tempfile.mkdtemp(prefix="forebay-postgres-"))
            self._stack.callback(shutil.rmtree, folder)
            self._postgres = self._stack.enter_context(Postgres(folder, settings=NO_POWER_CUT))
        return self._postgres

    def database(self, port: int | None = None) -> str:
        """The address of a new, empty database; by way of another port than the server's own if one is given."""
        server = self.postgres()
        dsn = server.dsn(server.create_database())
        return dsn if port is None else dsn.replace(f":{server.port}/", f":{port}/")

    def name(self, of: str) -> str:
        """One that nothing else of this run has."""
        self._names += 1
        return f"{of}-{self._names}"

    def _start(self, kind: str) -> Kafka:
        install_with_archive()
        folder = self._folder / f"kafka-{kind}"
        kafka: Kafka
        if kind == "three":
            kafka = Cluster(folder)
        elif kind == "old":
            kafka = OldBroker(folder)
        else:
            kafka = Broker(folder, settings=HASTY if kind == "hasty" else {})
        kafka.__enter__()
        return kafka
