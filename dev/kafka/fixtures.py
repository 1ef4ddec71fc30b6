"""pytest fixtures with real brokers, one of each kind per session: `kafka`, `kafka_cluster`,
`secure_kafka`, `old_kafka`.

A test may kill what it is given; the next one finds it running again. Topics are a test's own business: it takes a name
of its own and does not clean up; a server that holds many of them by then is made anew. Where Java or Maven is missing,
tests are skipped with the remedy, and tests/conftest.py lets no skip pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Generic, Self, TypeVar

import pytest

from dev.kafka.archive import install_with_archive
from dev.kafka.broker import Broker, Cluster
from dev.kafka.install import KAFKA, KAFKA_WITH_ZOOKEEPER, Distribution, KafkaUnavailable, install
from dev.kafka.secure import SecureBroker
from dev.kafka.zookeeper.broker import OldBroker

NEEDS = {"kafka": KAFKA, "kafka_cluster": KAFKA, "secure_kafka": KAFKA, "old_kafka": KAFKA_WITH_ZOOKEEPER}
S = TypeVar("S", bound=Broker | Cluster | OldBroker)

CROWDED = 250
"""Partitions. A new server takes some 3 s to start; with thousands of partitions a killed one takes up to a minute."""

UNAVAILABLE = pytest.StashKey[dict[Distribution, str]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What the chosen tests need is brought before the first of them runs: a download is no part of a test's time."""
    unavailable = session.config.stash.setdefault(UNAVAILABLE, {})
    if session.config.option.collectonly:
        return
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    # Some tests ask for a fixture by a name that is a parameter.
    params = (item.callspec.params.values() for item in session.items if hasattr(item, "callspec"))
    names |= {value for values in params for value in values if isinstance(value, str)}
    for distribution in {NEEDS[name] for name in names & NEEDS.keys()}:
        try:
            install_with_archive() if distribution is KAFKA else install(distribution)
        except KafkaUnavailable as error:
            unavailable[distribution] = str(error)


def skip_unless_installed(name: str, config: pytest.Config) -> None:
    reason = config.stash[UNAVAILABLE].get(NEEDS[name])
    if reason:
        pytest.skip(reason)  # Java or Maven is missing; with CI=true a skip fails


class Kept(Generic[S]):
    """The server of a session, made anew once it holds more than CROWDED partitions of earlier tests."""

    def __init__(self, name: str, make: Callable[[Path], S], request: pytest.FixtureRequest) -> None:
        skip_unless_installed(name, request.config)
        self._name = name
        self._make = make
        self._folders: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        self._running = ExitStack()
        self._server: S | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def get(self) -> S:
        """It runs, whatever the last test did to it."""
        if self._server is not None and self._server.partitions > CROWDED:
            self._running.close()
            self._server = None
        if self._server is None:
            self._server = self._make(self._folders.mktemp(self._name))
            self._running.enter_context(self._server)
        elif self._server.gone:
            self._server.start()
        return self._server


@pytest.fixture(scope="session")
def session_kafka(request: pytest.FixtureRequest) -> Iterator[Kept[Broker]]:
    with Kept("kafka", Broker, request) as kept:
        yield kept


@pytest.fixture(scope="session")
def session_kafka_cluster(request: pytest.FixtureRequest) -> Iterator[Kept[Cluster]]:
    with Kept("kafka_cluster", Cluster, request) as kept:
        yield kept


@pytest.fixture(scope="session")
def session_secure_kafka(request: pytest.FixtureRequest) -> Iterator[Kept[SecureBroker]]:
    with Kept("secure_kafka", SecureBroker, request) as kept:
        yield kept


@pytest.fixture(scope="session")
def session_old_kafka(request: pytest.FixtureRequest) -> Iterator[Kept[OldBroker]]:
    with Kept("old_kafka", OldBroker, request) as kept:
        yield kept


@pytest.fixture
def kafka(session_kafka: Kept[Broker]) -> Broker:
    """The newest Kafka, one broker."""
    return session_kafka.get()


@pytest.fixture
def kafka_cluster(session_kafka_cluster: Kept[Cluster]) -> Cluster:
    """The newest Kafka, three brokers and a controller."""
    return session_kafka_cluster.get()


@pytest.fixture
def secure_kafka(session_secure_kafka: Kept[SecureBroker]) -> SecureBroker:
    """The newest Kafka, one broker with TLS, SASL and ACLs."""
    try:
        return session_secure_kafka.get()
    except KafkaUnavailable as error:
        pytest.skip(str(error))  # openssl is missing; with CI=true a skip fails


@pytest.fixture
def old_kafka(session_old_kafka: Kept[OldBroker]) -> OldBroker:
    """Kafka 3.9 with ZooKeeper, one broker."""
    return session_old_kafka.get()
