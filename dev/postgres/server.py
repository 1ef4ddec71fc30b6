"""One PostgreSQL server on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg

from dev.kafka.ports import HOST, free_port
from dev.postgres.programs import Runner, find_programs, find_runner, version
from dev.process import ServerFailed, ServerProcess

USER = "forebay"
INITDB_WITHIN_S = 120
STOP_WITHIN_S = 10.0
CONNECT_WITHIN_S = 10.0
RETRY_S = 0.1

SOCKET_PATH_MOST = 90
"""A socket's path has 107 bytes at most (unix(7)), its name in the folder takes up to 15."""

STATUS_LINE = 7
"""Of postmaster.pid: how pg_ctl knows that the server accepts connections (src/include/utils/pidfile.h)."""

OLD_PROCESSES_STILL_THERE = "pre-existing shared memory block"

T = TypeVar("T")


class Postgres(ServerProcess):
    """Reached by TCP on a port of 127.0.0.1, and by a socket in its folder unless the path is too long; always with a
    password.

    Without a `folder` it has one for as long as the `with` block lasts. Root must give one that the user `postgres` can
    reach, which pytest's are not. `settings` are those of postgresql.conf.
    """

    stop_signal = signal.SIGINT  # SIGTERM waits for every client to leave

    def __init__(
        self, folder: Path | None = None, *, port: int | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self._temporary: TemporaryDirectory[str] | None = None
        if folder is None:
            self._temporary = TemporaryDirectory(prefix="forebay-postgres-", ignore_cleanup_errors=True)
            folder = Path(self._temporary.name)
        super().__init__(folder)
        self.port = port or free_port()
        self._settings = dict(settings or {})
        self._data = folder / "data"
        self._password_file = folder / "password"

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{database}"

    def start(self, timeout_s: float = 60.0) -> None:
        """As ever; it also waits for children that a killed one has left behind."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            said_before = len(self.log_tail(2**30))
            try:
                super().start(timeout_s)
                return
            except ServerFailed:
                new = self.log_tail(2**30)[said_before:]
                if OLD_PROCESSES_STILL_THERE not in new or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_S)

    def kill(self) -> None:
        """Its children as well: they would answer those who are connected until they notice."""
        children = [] if self.gone else _children_of(self.pid)
        super().kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):  # it ended in this moment
                os.kill(child, signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except BaseException:
            self._clean_up()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop(STOP_WITHIN_S)  # its children too: they would go on writing for a moment after a kill
        except subprocess.TimeoutExpired:
            self.kill()
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def create_database(self) -> str:
        """A new, empty database; its name."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Whoever is connected to it loses the connection."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """As superuser, each call on a connection of its own. Not for measuring."""
        return _run(self._execute(sql, database))

    async def _execute(self, sql: str, database: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.dsn(database), timeout=CONNECT_WITHIN_S)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    @property
    def _password(self) -> str:
        return self._password_file.read_text()

    def _command(self) -> Sequence[str]:
        programs, runner = find_programs(), find_runner()
        if not self._data.exists():
            self._initialize(programs, runner)
        socket = str(self.folder) if len(str(self.folder)) <= SOCKET_PATH_MOST else ""
        settings = {"listen_addresses": HOST, "unix_socket_directories": socket, **self._settings}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [*runner.prefix, str(programs / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]

    def _initialize(self, programs: Path, runner: Runner) -> None:
        """A new data folder, whole or not there."""
        version(programs)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(16))
        for path in (self.folder, self._password_file):
            os.chown(path, runner.uid, runner.gid)
        unfinished = self.folder / f"data.{os.getpid()}"
        command = [*runner.prefix, str(programs / "initdb"), "-D", str(unfinished), "-U", USER, "-E", "UTF8"]
        command += ["--no-locale", "--no-sync", "--auth=scram-sha-256", f"--pwfile={self._password_file}"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder, timeout=INITDB_WITHIN_S
        )
        if done.returncode:
            raise ServerFailed(f"{self.folder} could not be filled:\n{done.stdout.decode(errors='replace')}")
        unfinished.rename(self._data)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):  # there is no such file yet
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return len(lines) > STATUS_LINE and lines[0] == str(self.pid) and lines[STATUS_LINE].strip() == "ready"
        return False


@contextlib.contextmanager
def database_of(server: Postgres) -> Iterator[str]:
    """The dsn of a new database, dropped in the end."""
    name = server.create_database()
    yield server.dsn(name)
    if not server.gone:
        server.drop_database(name)


def _children_of(pid: int) -> list[int]:
    if not Path("/proc/self/stat").exists():  # macOS
        found = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = found.stdout.split()
        return [int(child) for child, parent in zip(pairs[::2], pairs[1::2], strict=True) if int(parent) == pid]
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # After the name, which is in brackets and may hold anything: state, parent (proc_pid_stat(5)).
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                children.append(int(stat.parent.name))
    return children


def _run(work: Coroutine[Any, Any, T]) -> T:
    """On a loop of its own, wherever the caller runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
