"""`forebay store rebuild` on a data folder, with the states in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dev.postgres.server import Postgres
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import Database, SqliteEventLog, SqliteQueue, SqliteStore
from forebay.core.job import Job
from forebay.core.message import Channel
from forebay.core.payload import JSON, Payload
from forebay.ports.store import JobQuery, ResultStore
from forebay.projector import Projector
from forebay.telemetry.metrics import Metrics
from forebay.testing.samples import TENANT, job_id, message, request, succeeded
from forebay.testing.service import run_command
from forebay.testing.store_contract import batch

pytestmark = pytest.mark.scenario

Ran = subprocess.CompletedProcess[str]
Forebay = Callable[..., Ran]
JOBS = 30


@pytest.fixture
def forebay(tmp_path: Path) -> Forebay:
    """`forebay("store", "rebuild", ..., key=value)`, in an empty folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def run(*arguments: str, **settings: str) -> Ran:
        return run_command(*arguments, settings=settings, cwd=folder)

    return run


async def fill(folder: Path, dsn: str = "") -> None:
    """Jobs in the log and in the store, and in the store one that the log knows nothing of."""
    database = Database(folder).open()
    store: ResultStore = await PostgresStore.open(dsn) if dsn else SqliteStore(database)
    events = SqliteEventLog(database)
    await SqliteQueue(database).publish(Channel("sample", "normal"), [message(n) for n in range(JOBS)])
    await events.publish([succeeded(n, Payload(media_type=JSON, data=b"[1]")) for n in range(JOBS)])
    projector = Projector(events, store, Metrics())
    projector.stop()
    await projector.run()
    await store.project([batch("strange", "", "1", request(999))])
    await close(store, database)


async def close(store: ResultStore, database: Database) -> None:
    if isinstance(store, PostgresStore):
        await store.close()
    await database.close()


async def jobs_in(folder: Path, dsn: str = "") -> Sequence[Job]:
    database = Database(folder).open()
    store: ResultStore = await PostgresStore.open(dsn) if dsn else SqliteStore(database)
    found = (await store.list_jobs(JobQuery(tenant=TENANT, limit=1000, look=1000))).jobs
    await close(store, database)
    return found


def told(ran: Ran) -> str:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_states_come_from_the_log_alone(forebay: Forebay, tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    assert told(forebay("store", "rebuild", "--data-dir", str(tmp_path))).startswith("60 records applied in ")
    assert [job.id for job in asyncio.run(jobs_in(tmp_path))] == [job_id(n) for n in reversed(range(JOBS))]


def test_the_states_in_postgresql_too(forebay: Forebay, tmp_path: Path, postgres_dsn: str) -> None:
    asyncio.run(fill(tmp_path, postgres_dsn))
    ran = forebay("store", "rebuild", "--data-dir", str(tmp_path), store=postgres_dsn)
    assert told(ran).startswith("60 records applied in ")
    assert len(asyncio.run(jobs_in(tmp_path, postgres_dsn))) == JOBS


def test_a_service_that_runs_on_the_folder_must_be_stopped(forebay: Forebay, tmp_path: Path) -> None:
    database = Database(tmp_path).open()
    try:
        ran = forebay("store", "rebuild", "--data-dir", str(tmp_path))
    finally:
        asyncio.run(database.close())
    assert ran.returncode == 1
    assert "is in use by process" in ran.stderr


def test_a_database_that_refuses_us_is_told(forebay: Forebay, tmp_path: Path, postgres: Postgres) -> None:
    ran = forebay("store", "rebuild", "--data-dir", str(tmp_path), store=postgres.dsn("no_such_database"))
    assert ran.returncode == 1
    assert 'database "no_such_database" does not exist' in ran.stderr
    password = postgres.dsn().partition("@")[0].rpartition(":")[2]
    assert password not in ran.stderr


def test_what_is_in_memory_cannot_be_rebuilt_from_outside(forebay: Forebay) -> None:
    ran = forebay("store", "rebuild", "--queue", "memory://", "--store", "memory://")
    assert ran.returncode == 1
    assert "there is nothing to rebuild" in ran.stderr
