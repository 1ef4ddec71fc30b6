"""The server that other tests trust: what it keeps, what it says, and that it goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dev.kafka.ports import HOST
from dev.postgres.server import USER, Postgres
from dev.process import ServerFailed

WITHIN_S = 30.0


def gone_within(pid: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the user of root's server can reach."""
    with tempfile.TemporaryDirectory(prefix="forebay-postgres-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
def test_what_was_committed_is_there_after_a_bounce(postgres: Postgres, postgres_dsn: str, hard: bool) -> None:
    database = postgres_dsn.rpartition("/")[2]
    postgres.execute("CREATE TABLE kept AS SELECT 7 AS n", database)
    postgres.bounce(hard=hard)
    assert postgres.execute("SELECT n FROM kept", database) == [(7,)]


def test_a_killed_server_starts_again_at_once_as_often_as_one_likes(postgres: Postgres) -> None:
    for _ in range(5):
        postgres.bounce(hard=True)
    assert postgres.execute("SELECT 1") == [(1,)]


def test_databases_are_apart(postgres: Postgres) -> None:
    one, two = postgres.create_database(), postgres.create_database()
    postgres.execute("CREATE TABLE mine (n int)", one)
    assert postgres.execute("SELECT FROM pg_tables WHERE tablename = 'mine'", two) == []
    for name in (one, two):
        postgres.drop_database(name)
    assert postgres.execute(f"SELECT FROM pg_database WHERE datname IN ('{one}', '{two}')") == []


async def test_nobody_comes_in_without_the_password(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host=HOST, port=postgres.port, user=USER, database="postgres", password="guessed")


async def test_it_listens_on_a_socket_in_its_folder_too(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.dsn(), host=str(postgres.folder), port=postgres.port)
    assert await connection.fetchval("SELECT inet_server_addr()") is None
    await connection.close()


def test_a_port_that_is_taken_is_told(postgres: Postgres, folder: Path) -> None:
    second = Postgres(folder, port=postgres.port)
    with pytest.raises(ServerFailed, match="could not create any TCP/IP sockets"):
        second.start()


def test_settings_reach_the_server(folder: Path) -> None:
    with Postgres(folder, settings={"work_mem": "7MB", "fsync": "off"}) as server:
        assert server.execute("SHOW work_mem") == [("7MB",)]
        assert server.stop() == 0


def test_a_killed_starter_leaves_no_server_behind(folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from dev.postgres.server import Postgres\n"
        f"server = Postgres(Path({str(folder)!r}), settings={{'fsync': 'off'}}); server.start()\n"
        "print(server.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        server_pid = int(starter.stdout.readline())
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    assert gone_within(server_pid, WITHIN_S)
