"""pytest fixtures with real brokers, one of each kind per session: `kafka`, `kafka_cluster`,
`secure_kafka`, `old_kafka`.

A test may kill what it is given; the next one finds it running again. Topics are a test's own business: it takes a name
of its own and does not clean up. Where Java or Maven is missing, tests are skipped with the remedy, and
tests/conftest.py lets no skip pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.kafka.archive import install_with_archive
from dev.kafka.broker import Broker, Cluster
from dev.kafka.install import KAFKA, KAFKA_WITH_ZOOKEEPER, Distribution, KafkaUnavailable, install
from dev.kafka.secure import SecureBroker
from dev.kafka.zookeeper.broker import OldBroker

NEEDS = {"kafka": KAFKA, "kafka_cluster": KAFKA, "secure_kafka": KAFKA, "old_kafka": KAFKA_WITH_ZOOKEEPER}
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
        pytest.skip(reason)


@pytest.fixture(scope="session")
def session_kafka(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    skip_unless_installed("kafka", pytestconfig)
    with Broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def session_kafka_cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    skip_unless_installed("kafka_cluster", pytestconfig)
    with Cluster(tmp_path_factory.mktemp("kafka-cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def session_secure_kafka(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecureBroker]:
    skip_unless_installed("secure_kafka", pytestconfig)
    try:
        with SecureBroker(tmp_path_factory.mktemp("secure-kafka")) as broker:
            yield broker
    except KafkaUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def session_old_kafka(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldBroker]:
    skip_unless_installed("old_kafka", pytestconfig)
    with OldBroker(tmp_path_factory.mktemp("old-kafka")) as broker:
        yield broker


@pytest.fixture
def kafka(session_kafka: Broker) -> Broker:
    """The newest Kafka, one broker."""
    if session_kafka.gone:
        session_kafka.start()
    return session_kafka


@pytest.fixture
def kafka_cluster(session_kafka_cluster: Cluster) -> Cluster:
    """The newest Kafka, three brokers and a controller."""
    session_kafka_cluster.start()
    return session_kafka_cluster


@pytest.fixture
def secure_kafka(session_secure_kafka: SecureBroker) -> SecureBroker:
    """The newest Kafka, one broker with TLS, SASL and ACLs."""
    if session_secure_kafka.gone:
        session_secure_kafka.start()
    return session_secure_kafka


@pytest.fixture
def old_kafka(session_old_kafka: OldBroker) -> OldBroker:
    """Kafka 3.9 with ZooKeeper, one broker."""
    if session_old_kafka.gone:
        session_old_kafka.start()
    return session_old_kafka
