"""pytest fixture `s3`: one real server of S3 per session. A test may kill it; the next one finds it running again.

Objects are a test's own business: it takes a prefix of its own. Where Java or Maven is missing, tests are skipped with
the remedy, as those of Kafka are (dev/kafka/fixtures.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.kafka.install import KafkaUnavailable, install
from dev.s3.server import S3PROXY, S3Server

UNAVAILABLE = pytest.StashKey[str]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """A download is no part of a test's time."""
    wanted = any("s3" in getattr(item, "fixturenames", ()) for item in session.items)
    if session.config.option.collectonly or not wanted:
        return
    try:
        install(S3PROXY)
    except KafkaUnavailable as error:
        session.config.stash[UNAVAILABLE] = str(error)


@pytest.fixture(scope="session")
def session_s3(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    reason = pytestconfig.stash.get(UNAVAILABLE, None)
    if reason:
        pytest.skip(reason)
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(session_s3: S3Server) -> S3Server:
    """S3Proxy, with the bucket `forebay`."""
    if session_s3.gone:
        session_s3.start()
    return session_s3
