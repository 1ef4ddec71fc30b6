"""How long does a page of a list take among a million jobs, whatever it is asked for, on PostgreSQL and on SQLite?

The whole API around the store, without a socket: 50 jobs a page. One job in a thousand failed, one in a hundred
thousand is of the rare model, none is canceled, and each has a user of a thousand in its metadata. A page that finds
nothing has looked for as long as a page may.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import uvloop
from fastapi import FastAPI

from benchmarks.report import Figure
from dev.postgres.server import Postgres
from forebay.adapters.memory import (
    MemoryApiKeys,
    MemoryBlobs,
    MemoryCancellations,
    MemoryEventLog,
    MemoryFleet,
    MemoryLog,
    MemoryQueue,
    MemoryQuotas,
    MemoryWebhookEndpoints,
)
from forebay.adapters.postgres import PostgresStore
from forebay.adapters.sqlite import Database, SqliteStore
from forebay.api.app import build_app
from forebay.assembly.process import spare_collector
from forebay.catalog import Catalog
from forebay.core.event import JobEvent, JobRequest
from forebay.core.ids import IdMint
from forebay.core.payload import JSON, Payload
from forebay.core.times import to_rfc3339
from forebay.ports.event_log import START, LogBatch
from forebay.ports.store import ResultStore
from forebay.telemetry.metrics import Metrics
from forebay.testing.samples import failed, request, succeeded

OUTPUT = Payload(media_type=JSON, data=b"[1]")
JOBS = 1_000_000
BATCH = 1_000
PAGES = 300
GOAL_MS = 50.0

Place = Callable[[], AbstractAsyncContextManager[ResultStore]]


def measure() -> list[Figure]:
    figures = [_run("SQLite", _sqlite)]
    with Postgres() as server:
        figures.append(_run("PostgreSQL", partial(_postgres, server)))
    return figures


def _run(name: str, place: Place) -> Figure:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        worst_ms = runner.run(_measure(name, place))
    question = f"a page among {JOBS:,} jobs, {name}, p99 of the slowest kind"
    return Figure(question=question, measured=worst_ms, goal=GOAL_MS, at_least=False, unit=" ms")


async def _measure(name: str, place: Place) -> float:
    async with place() as store:
        began = time.perf_counter()
        await _fill(store)
        print(f"  {name}: filled in {time.perf_counter() - began:.0f} s", flush=True)
        transport = httpx2.ASGITransport(_app(store))
        async with httpx2.AsyncClient(transport=transport, base_url="http://forebay") as http:
            cursors = await _cursors(http)
            spare_collector()  # as a service that is ready does
            worst_ms = 0.0
            for kind, asked in _kinds(cursors).items():
                took, found, ended = [], 0, 0
                for _ in range(PAGES):
                    params = asked()
                    began = time.perf_counter()
                    answer = await http.get("/v1/jobs", params=params)
                    took.append((time.perf_counter() - began) * 1e3)
                    page = answer.json()
                    found += len(page["jobs"])
                    ended += "next_cursor" not in page
                p99 = statistics.quantiles(took, n=100)[98]
                worst_ms = max(worst_ms, p99)
                print(
                    f"  {name}, {kind}: p50 {statistics.median(took):.1f} ms, p99 {p99:.1f} ms; "
                    f"{found / PAGES:.1f} jobs a page, {ended} of {PAGES} were the last",
                    flush=True,
                )
        return worst_ms


async def _fill(store: ResultStore) -> None:
    position = START
    for first in range(0, JOBS, BATCH):
        facts: list[JobRequest | JobEvent] = []
        for number in range(first, first + BATCH):
            model = "rare" if number % 100_000 == 7 else f"model-{number % 5}"
            facts.append(request(number, model=model, metadata={"user": f"user-{number % 1000}"}))
            facts.append(failed(number) if number % 1000 == 3 else succeeded(number, OUTPUT))
        end = str(first + BATCH)
        assert await store.project([LogBatch(source="log", start=position, end=end, facts=tuple(facts))]) is not None
        position = end


async def _cursors(http: httpx2.AsyncClient) -> list[str]:
    """Of pages all over the list."""
    found, cursor = [], ""
    for number in range(JOBS // 1000 - 1):
        params = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
        cursor = (await http.get("/v1/jobs", params=params)).json()["next_cursor"]
        if number % 10 == 0:
            found.append(cursor)
    return found


def _kinds(cursors: list[str]) -> Mapping[str, Callable[[], dict[str, str]]]:
    def anywhere(**filters: str) -> Callable[[], dict[str, str]]:
        return lambda: {"cursor": random.choice(cursors), **filters}

    middle = to_rfc3339(request(JOBS // 2).accepted_at)
    return {
        "the newest": dict,
        "anywhere": anywhere(),
        "older than the middle": lambda: {"created_before": middle},
        "of one model in five": anywhere(model="model-2"),
        "of a rare model": anywhere(model="rare"),
        "failed": anywhere(status="failed"),
        "canceled, which none is": anywhere(status="canceled"),
        "of one user in a thousand": lambda: {
            "cursor": random.choice(cursors),
            "metadata.user": f"user-{random.randrange(1000)}",
        },
    }


def _app(store: ResultStore) -> FastAPI:
    log = MemoryLog()
    return build_app(
        catalog=Catalog(specs={}, problems={}, untrusted=frozenset()),
        mint=IdMint([os.urandom(32)], os.urandom),
        queue=MemoryQueue(log),
        store=store,
        blobs=MemoryBlobs(),
        fleet=MemoryFleet(),
        events=MemoryEventLog(log),
        cancellations=MemoryCancellations(),
        keys=MemoryApiKeys(),
        quotas=MemoryQuotas(),
        endpoints=MemoryWebhookEndpoints(),
        check_webhook_url=str,
        metrics=Metrics(),
        draining=asyncio.Event(),
        max_body_bytes=1_000,
        inline_limit_bytes=1_000,
    )


@asynccontextmanager
async def _sqlite() -> AsyncIterator[ResultStore]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder)).open()
        yield SqliteStore(database)
        await database.close()


@asynccontextmanager
async def _postgres(server: Postgres) -> AsyncIterator[ResultStore]:
    name = server.create_database()
    store = await PostgresStore.open(server.dsn(name))
    yield store
    await store.close()
    server.drop_database(name)
