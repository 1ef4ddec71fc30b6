"""What the storms of one run stand on: brokers and a database, each started when first asked for, then shared.

A storm gives back what it was lent as it found it: running. Names that begin anew (topics, groups, a database) keep the
storms apart.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg

from dev.kafka.archive import install_with_archive
from dev.kafka.broker import Broker, Cluster
from dev.kafka.zookeeper.broker import OldBroker
from dev.postgres import Postgres

Kafka = Broker | OldBroker | Cluster


class Stage:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._lent: dict[str, Kafka] = {}
        self._postgres: Postgres | None = None
        self._names = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def kafka(self, kind: str = "one") -> Kafka:
        """`one`: the newest Kafka, one broker; `three`: three of them and a controller; `old`: 3.9 with ZooKeeper."""
        if kind not in self._lent:
            install_with_archive()
            made = {"one": Broker, "three": Cluster, "old": OldBroker}[kind](self.folder / f"kafka-{kind}")
            self._lent[kind] = self._stack.enter_context(made)
        return self._lent[kind]

    def postgres(self) -> Postgres:
        if self._postgres is None:
            self._postgres = self._stack.enter_context(Postgres(self.folder / "postgres"))
        return self._postgres

    def database(self, port: int | None = None) -> str:
        """The URL of a new, empty database; by way of another port than the server's own if one is given."""
        server = self.postgres()
        name = self.name("storm").replace("-", "_")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        parts = urlsplit(server.url)
        place = parts.netloc if port is None else parts.netloc.replace(f":{parts.port}", f":{port}")
        return urlunsplit(parts._replace(netloc=place, path=f"/{name}"))

    def name(self, of: str) -> str:
        """One that nothing else of this run has."""
        self._names += 1
        return f"{of}-{self._names}"
