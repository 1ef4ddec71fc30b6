"""How many facts per second does a store project, and how many jobs per second does it give, PostgreSQL beside SQLite?

Batches of 1000 facts, the projector's, about jobs with an output of 200 bytes: `life` has request, started and
succeeded of a job in one batch, as a projector that is behind sees them; `steps` has them in batches of their own, as
one that keeps up does. Then reads of these jobs at random, so many in flight at once. PostgreSQL runs on this machine,
as it comes but for `synchronous_commit`; the server's processor time is on the same cores.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.report import Figure
from dev.postgres.server import Postgres
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import Database, SqliteStore
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.payload import JSON, Payload
from forebay.ports.event_log import START, LogBatch
from forebay.ports.queue import Durability
from forebay.ports.store import ResultStore
from forebay.testing.samples import TENANT, event, job_id, request, succeeded

FACTS = 1000
BATCHES = 60
GETS = 10_000
IN_FLIGHT = (1, 16)
OUTPUT = Payload(media_type=JSON, data=b"[" + b"0.123456," * 22 + b"1]")

Facts = Sequence[JobRequest | JobEvent]
Place = Callable[[], AbstractAsyncContextManager[ResultStore]]


def measure() -> list[Figure]:
    """There is no goal to meet: a service projects some thousands of facts in a second."""
    for durability in (Durability.PROCESS, Durability.FLUSHED):
        _run(f"SQLite, {durability.value}", partial(_sqlite, durability))
    with Postgres() as server:
        for wait in ("on", "off"):
            _run(f"PostgreSQL, synchronous_commit={wait}", partial(_postgres, server, wait))
    return []


def _run(name: str, place: Place) -> None:
    for shape, batches in (("life", _lives()), ("steps", _steps())):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_rates(name, shape, place, list(batches)))


async def _rates(name: str, shape: str, place: Place, batches: list[Facts]) -> None:
    async with place() as store:
        began, cpu = time.perf_counter(), time.process_time()
        position = START
        for number, facts in enumerate(batches, start=1):
            batch = LogBatch(source="log", start=position, end=str(number), facts=tuple(facts))
            assert await store.project([batch]) is not None
            position = batch.end
        count = sum(map(len, batches))
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        line = f"  {name}, {shape}: {count / took_s:,.0f} facts/s ({cpu_s / count * 1e6:.1f} us of our CPU a fact)"
        for in_flight in IN_FLIGHT:
            rate, cpu_us = await _gets(store, in_flight, count // 3)
            line += f", {rate:,.0f} gets/s with {in_flight} in flight ({cpu_us:.0f} us)"
        print(line, flush=True)


async def _gets(store: ResultStore, in_flight: int, jobs: int) -> tuple[float, float]:
    left = iter(range(GETS))

    async def reader() -> None:
        for _ in left:
            assert await store.get(TENANT, job_id(random.randrange(jobs))) is not None

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(reader() for _ in range(in_flight)))
    return GETS / (time.perf_counter() - began), (time.process_time() - cpu) / GETS * 1e6


def _lives() -> Iterator[Facts]:
    jobs = FACTS // 3
    for number in range(BATCHES):
        these = range(number * jobs, (number + 1) * jobs)
        yield [fact for n in these for fact in (request(n), event(n, EventKind.STARTED), succeeded(n, OUTPUT))]


def _steps() -> Iterator[Facts]:
    for number in range(BATCHES // 3):
        these = range(number * FACTS, (number + 1) * FACTS)
        yield [request(n) for n in these]
        yield [event(n, EventKind.STARTED) for n in these]
        yield [succeeded(n, OUTPUT) for n in these]


@asynccontextmanager
async def _sqlite(durability: Durability) -> AsyncIterator[ResultStore]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder), durability=durability).open()
        yield SqliteStore(database)
        await database.close()


@asynccontextmanager
async def _postgres(server: Postgres, wait: str) -> AsyncIterator[ResultStore]:
    name = server.create_database()
    server.execute(f"ALTER DATABASE {name} SET synchronous_commit = {wait}")
    store = await PostgresStore.open(server.dsn(name))
    yield store
    await store.close()
    server.drop_database(name)
