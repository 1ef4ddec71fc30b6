"""Does the memory of the API or of a worker grow with the number of jobs that wait in Kafka?

Resident memory of each role at 0, 200,000 and 1,000,000 waiting jobs of 1 KB, half of them for a model that never
answers (the worker is full and rests), half for one that answers 80 a second (it drains). The API takes a job every
10 ms and is asked for its metrics, the depth of each queue among them, once a second. A plain producer fills the
topics.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import uvloop

from benchmarks.client import Connection, Load
from benchmarks.kafka.backlog import preload
from benchmarks.kafka.service import KafkaService, kafka_service
from benchmarks.load import inputs
from benchmarks.processes import resident_mb
from benchmarks.report import Figure
from forebay.core.payload import JSON, Payload

MODELS = Path(__file__).resolve().parents[1] / "models"
WAITING = (0, 200_000, 1_000_000)
HELD, SLOW = "held", "slow"
ROLES = ("projector", "worker", "api")
WATCHED_S = 5.0
"""At each level, after as long for things to settle; the highest reading counts."""

SUBMIT_EVERY_S = 0.01
SCRAPE_EVERY_S = 1.0


def measure() -> list[Figure]:
    values = [Payload(media_type=JSON, data=json.dumps(text).encode()) for text in inputs()]
    readings: list[dict[str, float]] = []
    loaded = 0
    with kafka_service(HELD, SLOW, models_dir=MODELS, roles=ROLES) as service:
        uvloop.run(_use(service, WATCHED_S))
        for waiting in WAITING:
            began = time.perf_counter()
            for model in (HELD, SLOW):
                preload(service, model, values, (waiting - loaded) // 2)
            took_s, loaded = time.perf_counter() - began, waiting
            uvloop.run(_use(service, WATCHED_S))
            readings.append(uvloop.run(_use(service, WATCHED_S)))
            shown = ", ".join(f"{role} {mb:.1f}" for role, mb in readings[-1].items())
            print(f"  {waiting:>9,} waiting (loaded in {took_s:.0f} s): resident MB {shown}", flush=True)
    return [
        Figure(
            question=f"Kafka: resident memory of the {role} with {WAITING[-1]:,} jobs waiting less with none",
            measured=readings[-1][role] - readings[0][role],
            goal=30,
            at_least=False,
            unit=" MB",
        )
        for role in ("api", "worker")
    ]


async def _use(service: KafkaService, seconds: float) -> dict[str, float]:
    """Submit and scrape for that long; the highest resident memory of each role meanwhile, runners not counted."""
    roles = service.stack().roles
    highest = dict.fromkeys(ROLES, 0.0)
    until = time.monotonic() + seconds
    async with Load(service.role("api").url, 1) as api, Load(service.role("api").admin_url, 1) as admin:
        submit = api.post("/v1/jobs", json.dumps({"model": SLOW, "input": "x" * 1000}).encode())

        async def submitting(connection: Connection, _: int) -> None:
            while time.monotonic() < until:
                await _ask(connection, submit, 202)
                for role in ROLES:
                    highest[role] = max(highest[role], resident_mb(roles[role]))
                await asyncio.sleep(SUBMIT_EVERY_S)

        async def scraping(connection: Connection, _: int) -> None:
            while time.monotonic() < until:
                await _ask(connection, admin.get("/metrics"), 200)
                await asyncio.sleep(SCRAPE_EVERY_S)

        await asyncio.gather(api.each(1, submitting), admin.each(1, scraping))
    return highest


async def _ask(connection: Connection, request: bytes, expected: int) -> None:
    status, body = await connection.ask(request)
    if status != expected:
        raise RuntimeError(f"{status}: {body[:300]!r}")
