"""pytest fixtures with a real PostgreSQL: `postgres`, one server per session, and `postgres_dsn`, a database per test.

A test may kill the server; the next one finds it running again. Where PostgreSQL is missing, tests are skipped with the
remedy, and tests/conftest.py lets no skip pass unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.postgres.programs import PostgresUnavailable, find_programs, find_runner, version
from dev.postgres.server import Postgres, database_of

SETTINGS = {"fsync": "off"}
"""Tests kill processes and no power: what the kernel was given is there after a restart."""


@pytest.fixture(scope="session")
def session_postgres() -> Iterator[Postgres]:
    try:
        version(find_programs())
        find_runner()
    except PostgresUnavailable as error:
        pytest.skip(str(error))
    with Postgres(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def postgres(session_postgres: Postgres) -> Postgres:
    """A server that runs. A test that stops it may leave it so."""
    if session_postgres.gone:
        session_postgres.start()
    return session_postgres


@pytest.fixture
def postgres_dsn(postgres: Postgres) -> Iterator[str]:
    """A new, empty database."""
    with database_of(postgres) as dsn:
        yield dsn
