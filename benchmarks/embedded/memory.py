"""Does the service's memory grow with the number of jobs that wait?

The whole service with a model that never answers: resident memory of the service process with nothing waiting and with
200,000 jobs of 1 KB waiting, every one of them visible.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.client import Connection, Load
from benchmarks.processes import resident_mb
from benchmarks.report import Figure
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parents[1] / "models"
JOBS = 200_000
WARM_UP = 2_000
"""Jobs before the first reading: what code, caches and buffers take at once is not what a backlog takes."""

BODY = json.dumps({"model": "held", "input": "x" * 1000}).encode()


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"trusted_models": "held", "log_level": "warning"}
        with RunningService(Path(folder), MODELS, settings=settings) as service:
            empty_mb = resident_mb(service.pid)
            uvloop.run(_submit(service.url, WARM_UP))
            warm_mb = resident_mb(service.pid)
            began = time.perf_counter()
            last = uvloop.run(_submit(service.url, JOBS - WARM_UP))
            took_s = time.perf_counter() - began
            uvloop.run(_until_visible(service.url, last))
            full_mb = resident_mb(service.pid)
    print(
        f"  idle {empty_mb:.1f} MB, {WARM_UP} waiting {warm_mb:.1f} MB, {JOBS} waiting {full_mb:.1f} MB "
        f"(submitted in {took_s:.0f} s)"
    )
    return [
        Figure(
            question=f"resident memory with {JOBS} jobs waiting less with none",
            measured=full_mb - empty_mb,
            goal=30,
            at_least=False,
            unit=" MB",
        )
    ]


async def _submit(url: str, count: int) -> str:
    last = ""
    async with Load(url, 32) as load:
        request = load.post("/v1/jobs", BODY)

        async def submit(connection: Connection, number: int) -> None:
            nonlocal last
            status, body = await connection.ask(request)
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")
            last = json.loads(body)["id"]

        await load.each(count, submit)
    return last


async def _until_visible(url: str, job_id: str) -> None:
    async with Load(url, 1) as load:

        async def see(connection: Connection, number: int) -> None:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                _, body = await connection.ask(load.get("/v1/jobs?limit=1"))
                jobs = json.loads(body)["jobs"]
                if jobs and jobs[0]["id"] >= job_id:
                    return
                await asyncio.sleep(0.1)
            raise TimeoutError("the projector did not catch up in 120 s")

        await load.each(1, see)
