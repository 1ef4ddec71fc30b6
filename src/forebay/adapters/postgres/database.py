"""The connections to one database."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

from forebay.adapters.postgres.failures import is_lost, translate
from forebay.adapters.postgres.schema import migrate
from forebay.core.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CONNECT_S = 2.0
"""For a turn and a connection together, which take milliseconds; a caller of the API has its answer within three
seconds."""

TURN_S = 1.0
"""Of these, the wait for a turn: whoever has one has time for it. Were the last millisecond enough, a server that is
too slow for what is asked of it would lose a good connection with each read that comes too late, and answer none."""

READ_S = 2.0
"""From the call to the rows, whatever is waited for: a read takes a millisecond, and one that takes so long has met a
server that is stopped or drowning."""

SCAN_S = 15.0
"""For reads that may pass over many rows."""

WRITE_S = 30.0
"""A batch takes some 50 ms, and may wait for another projector at the same rows."""

MIGRATE_S = 600.0
"""Others may be changing the schema before us, and large tables take their time."""

# Each of our statements finds its rows through an index, whatever the planner believes: else the plan that a process
# has made for the empty tables of a first start scans all of them later, until the next ANALYZE.
#
# A projector that was stopped in the midst of a transaction must not keep its rows from the others for ever, and one
# that waits for rows gives up before its own caller does.
_SESSION = """
SET application_name = 'forebay';
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off;
SET idle_in_transaction_session_timeout = {idle_in_transaction_ms};
SET lock_timeout = {lock_ms}
"""

log = structlog.get_logger(__name__)


class Database:
    """At most `connections` of them, opened when needed and kept. A connection on which anything went wrong is not used
    again, and when one was lost those that were kept are not either: so a server that comes back is found at once.

    `idle_in_transaction_s`: after how long the server ends a transaction whose process has stopped.
    """

    def __init__(self, dsn: str, *, connections: int = 8, idle_in_transaction_s: float = 10.0) -> None:
        self.where = _where(dsn)
        self._dsn = dsn
        self._session = _SESSION.format(
            idle_in_transaction_ms=round(idle_in_transaction_s * 1000),
            lock_ms=round(1500 * idle_in_transaction_s),
        )
        self._turns = asyncio.Semaphore(connections)
        self._connections = connections
        self._kept: list[Connection] = []
        self._in_use: set[Connection] = set()
        self._serving = False
        self._closed = False

    async def open(self) -> None:
        """Connect and bring the schema up to date. Raises Unavailable, or Misconfigured for what an operator must
        mend: the dsn, the password, a right, a version."""
        async with self.borrow() as connection:
            await migrate(connection, MIGRATE_S)
        self._serving = True

    async def close(self) -> None:
        """Whoever still uses a connection gets Unavailable."""
        self._closed = True
        for connection in self._in_use:
            connection.terminate()
        kept, self._kept = self._kept, []
        for connection in kept:
            await hang_up(connection)

    async def fetch(self, sql: str, *arguments: Any, timeout_s: float = READ_S) -> list[asyncpg.Record]:
        """The rows, within `timeout_s` of the call. Asked once more when a connection turns out to be gone that was
        kept from before."""
        reused = bool(self._kept)
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            return await self._fetch(sql, arguments, deadline)
        except Unavailable as error:
            if not reused or isinstance(error.__cause__, TimeoutError) or not is_lost(error.__cause__):
                raise
        return await self._fetch(sql, arguments, deadline)

    async def _fetch(self, sql: str, arguments: tuple[Any, ...], deadline: float) -> list[asyncpg.Record]:
        async with self.borrow(deadline) as connection:
            return await connection.fetch(sql, *arguments, timeout=deadline - asyncio.get_running_loop().time())

    @asynccontextmanager
    async def borrow(self, deadline: float = math.inf) -> AsyncIterator[Connection]:
        """A connection for a moment; leave no transaction open on it. What the driver raises, here or in the body,
        comes out translated. Raises Unavailable when its turn does not come within a second, or it has no connection
        within two, or at `deadline` (of the loop's clock) if that is sooner."""
        now = asyncio.get_running_loop().time()
        deadline = min(deadline, now + CONNECT_S)
        try:
            await self._take_turn(min(deadline, now + TURN_S))
            try:
                connection = self._kept_one() or await self._connect(deadline)
                self._in_use.add(connection)
                try:
                    yield connection
                except BaseException as error:
                    connection.terminate()
                    if is_lost(error):
                        self._drop_kept()
                    raise
                finally:
                    self._in_use.discard(connection)
                if not connection.is_closed():
                    self._kept.append(connection)
            finally:
                self._turns.release()
        except Exception as error:
            translated = translate(error, self.where, serving=self._serving)
            if translated is error:
                raise
            raise translated from error

    async def connect(self) -> Connection:
        """A connection of the caller's own. Raises what the driver raises, TimeoutError, or Misconfigured."""
        return await self._connect(asyncio.get_running_loop().time() + CONNECT_S)

    async def _connect(self, deadline: float) -> Connection:
        if self._closed:
            raise Unavailable(f"{self.where} is closed")
        async with asyncio.timeout_at(deadline):
            try:
                connection = await asyncpg.connect(self._dsn, timeout=CONNECT_S, command_timeout=WRITE_S)
            except asyncpg.ClientConfigurationError:
                raise
            except (ValueError, OverflowError):
                # Not from what the driver raises, which may tell a part of the password.
                raise Misconfigured(
                    f"{self.where} is no address: what is one of :/?#[]@ in a user or password must be "
                    "percent-encoded, and a port is a number up to 65535"
                ) from None
            try:
                await connection.execute(self._session)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _take_turn(self, deadline: float) -> None:
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Unavailable(
                f"{self.where}: all {self._connections} connections were busy for {deadline - began:.2g} s"
            ) from error

    def _kept_one(self) -> Connection | None:
        while self._kept:
            connection = self._kept.pop()
            if not connection.is_closed():
                return connection
        return None

    def _drop_kept(self) -> None:
        kept, self._kept = self._kept, []
        for connection in kept:
            connection.terminate()


async def hang_up(connection: Connection) -> None:
    """Say goodbye where somebody listens."""
    try:
        await connection.close(timeout=1.0)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()


def _where(dsn: str) -> str:
    """For people: hosts and database, without user, password and options. A password may hold what separates parts."""
    return f"PostgreSQL at {dsn.partition('://')[2].rpartition('@')[2].partition('?')[0]}"
