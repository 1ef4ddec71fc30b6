"""How long from submit to the result being visible, beyond the model's own time, with one job in flight?

Submitted with POST /v1/jobs, waited for with GET ?wait=, as a client that wants the answer soon would; the model does
nothing, and what it took all the same (`metrics.predict_s`) is taken off.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.client import Connection, Load
from benchmarks.report import Figure
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parent.parent / "tests" / "models"
JOBS = 1000
BODY = json.dumps({"model": "echo", "input": "x" * 1000}).encode()


def measure() -> list[Figure]:
    figures = []
    for synchronous in ("normal", "full"):
        with tempfile.TemporaryDirectory() as folder:
            settings = {"trusted_models": "echo", "models": "echo", "log_level": "warning", "synchronous": synchronous}
            with RunningService(Path(folder), MODELS, settings=settings) as service:
                uvloop.run(_latencies_ms(service.url, 100))
                latencies_ms = sorted(uvloop.run(_latencies_ms(service.url, JOBS)))
        p50, p99 = statistics.median(latencies_ms), latencies_ms[int(len(latencies_ms) * 0.99) - 1]
        print(f"  synchronous={synchronous}: p50 {p50:.2f} ms, p99 {p99:.2f} ms over {JOBS} jobs")
        figures.append(
            Figure(
                question=f"submit to result visible beyond the model's time, one in flight, p50, {synchronous}",
                measured=p50,
                goal=4,
                at_least=False,
                unit=" ms",
            )
        )
    return figures


async def _latencies_ms(url: str, jobs: int) -> list[float]:
    latencies_ms: list[float] = []
    async with Load(url, 1) as load:
        request = load.post("/v1/jobs", BODY)

        async def one(connection: Connection, number: int) -> None:
            began = time.perf_counter()
            _, accepted = await connection.ask(request)
            _, seen = await connection.ask(load.get(f"/v1/jobs/{json.loads(accepted)['id']}?wait=10"))
            took_s = time.perf_counter() - began
            job = json.loads(seen)
            if job["status"] != "succeeded":
                raise RuntimeError(seen[:300])
            latencies_ms.append((took_s - job["metrics"]["predict_s"]) * 1e3)

        await load.each(jobs, one)
    return latencies_ms
