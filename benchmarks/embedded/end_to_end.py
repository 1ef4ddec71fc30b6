"""How many jobs per second go through the whole service with a model that does nothing, load generator included?

Submit all over 32 connections, then look each result up over HTTP, oldest first, until it is there: first submit to
last result seen.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.client import Connection, Load
from benchmarks.report import Figure, spread
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parent.parent / "tests" / "models"
CONNECTIONS = 32
JOBS = 10_000
ROUNDS = 3
BODY = json.dumps({"model_name": "echo", "data": "x" * 1000}).encode()
POLL_S = 0.005


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"trusted_models": "echo", "models": "echo", "log_level": "warning"}
        with RunningService(Path(folder), MODELS, settings=settings) as service:
            uvloop.run(_rate(service.url, 1000))
            cpu_before = _cpu_s(service.pid)
            rates = [uvloop.run(_rate(service.url, JOBS)) for _ in range(ROUNDS)]
            cpu_s = _cpu_s(service.pid) - cpu_before
    print(f"  {spread(rates)} jobs/s, {cpu_s / (ROUNDS * JOBS) * 1e6:.0f} microseconds of service CPU per job")
    return [
        Figure(
            question="end to end, no-op model", measured=statistics.median(rates), goal=1000, at_least=True, unit="/s"
        )
    ]


async def _rate(url: str, jobs: int) -> float:
    ids: list[str] = [""] * jobs
    async with Load(url, CONNECTIONS) as load:
        request = load.post("/inference", BODY)

        async def submit(connection: Connection, number: int) -> None:
            status, body = await connection.ask(request)
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")
            ids[number] = json.loads(body)["request_id"]

        async def see(connection: Connection, number: int) -> None:
            while True:
                status, body = await connection.ask(load.get(f"/result/{ids[number]}"))
                if status == 200:
                    if b'"succeeded"' not in body:
                        raise RuntimeError(body[:300])
                    return
                await asyncio.sleep(POLL_S)

        began = time.perf_counter()
        await load.each(jobs, submit)
        await load.each(jobs, see)
        return jobs / (time.perf_counter() - began)


def _cpu_s(pid: int) -> float:
    """User and system seconds of the process (not of its runners)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100
