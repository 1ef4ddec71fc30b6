"""Who waits for which job, and the one connection of this process that hears of changes (LISTEN)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from forebay.adapters.postgres.database import Database, hang_up
from forebay.adapters.postgres.failures import translate
from forebay.core.job import Job
from forebay.ports.store import Subscription

CHANNEL = "forebay"
EVERYBODY = "*"

MOST_JOBS = 1400
"""In one payload of less than 8000 bytes (postgresql.org/docs/current/sql-notify.html): 4 bytes each, in base64."""

ASK_EVERY_S = 5.0
ASK_S = 2.0
RETRY_FROM_S, RETRY_TO_S = 0.1, 2.0

log = structlog.get_logger(__name__)


def payload_of(jobs: Sequence[Job]) -> str:
    """What is told of these jobs: a hash of each, so that a batch of the projector is one notification. Two jobs of one
    hash wake each other's readers, who look and wait on. Has no character that an SQL literal would mind."""
    if len(jobs) > MOST_JOBS:
        return EVERYBODY
    hashes = [_hash(job.tenant, job.id) for job in jobs]
    return base64.b64encode(struct.pack(f">{len(hashes)}I", *hashes)).decode()


def _hashes_in(payload: str) -> Sequence[int] | None:
    """None for everybody, and for what is not ours: whoever has the password may say anything here."""
    try:
        data = base64.b64decode(payload, validate=True)
        return struct.unpack(f">{len(data) // 4}I", data)
    except (ValueError, struct.error):
        return None


def _hash(tenant: str, job_id: str) -> int:
    return zlib.crc32(f"{tenant}/{job_id}".encode(errors="surrogatepass"))


class Wakeups:
    """Listens from the first subscription on. While it cannot, readers read again by themselves, each second; when it
    can again, everybody is woken."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subscriptions: dict[int, set[PostgresSubscription]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    @asynccontextmanager
    async def subscribe(self, tenant: str, job_id: str) -> AsyncIterator[PostgresSubscription]:
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name="postgres-wakeups")
        await self._tried.wait()
        subscription, key = PostgresSubscription(), _hash(tenant, job_id)
        of_job = self._subscriptions.setdefault(key, set())
        of_job.add(subscription)
        try:
            yield subscription
        finally:
            of_job.discard(subscription)
            if not of_job:
                self._subscriptions.pop(key, None)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})

    async def _listen(self) -> None:
        """Until cancelled."""
        retry_s = RETRY_FROM_S
        while True:
            try:
                await self._hear()
                retry_s = RETRY_FROM_S
            except Exception as error:  # the edge of the loop: whatever it is, readers go on without
                reason = str(translate(error, self._database.where, serving=True))
                log.warning("store.listener_away", reason=reason, retry_s=retry_s)
            finally:
                self._tried.set()
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, RETRY_TO_S)

    async def _hear(self) -> None:
        """Connect and listen, until the connection is lost."""
        connection = await self._database.connect()
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, self._heard)
            self._wake_everybody()  # whatever changed while nobody listened
            self._tried.set()
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):  # not lost: it is asked again
                    async with asyncio.timeout(ASK_EVERY_S):
                        await lost.wait()
                if not lost.is_set():
                    await connection.execute("SELECT", timeout=ASK_S)  # a dead link may never say that it is
        finally:
            await hang_up(connection)

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        hashes = _hashes_in(str(payload))
        if hashes is None:
            self._wake_everybody()
            return
        for key in hashes:
            for subscription in self._subscriptions.get(key, ()):
                subscription.wake()

    def _wake_everybody(self) -> None:
        for of_job in self._subscriptions.values():
            for subscription in of_job:
                subscription.wake()


class PostgresSubscription(Subscription):
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def changed(self, timeout_s: float) -> bool:
        if not self._event.is_set() and timeout_s > 0:
            with contextlib.suppress(TimeoutError):  # then nothing has changed
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
        changed = self._event.is_set()
        self._event.clear()
        return changed
