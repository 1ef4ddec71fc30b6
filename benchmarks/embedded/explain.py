"""Do half of the jobs start by the p50 that they were told, and nine in ten by the p90?

Jobs come at a steady rate, at random, to about nine tenths of what a model manages: one that takes jobs one by one for
50 to 150 ms, and one that takes up to 8 of them for 100 ms. Each is asked about once, as soon as it is visible, and its
`expected_start` held against its `started_at`. Those that a free runner takes at once are told so and not counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.client import Load
from benchmarks.report import Figure
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parents[1] / "models"
JOBS, BEFORE = 500, 100
RATES = {"uneven": 8.8, "slow": 70.0}
CONNECTIONS = 32
VISIBLE_AFTER_S = 0.005

Told = tuple[str, dict[str, Any]]
"""A job's id and the start that was expected."""


def measure() -> list[Figure]:
    figures = []
    for model, per_s in RATES.items():
        with tempfile.TemporaryDirectory() as folder:
            settings = {"trusted_models": model, "models": model, "log_level": "warning"}
            with RunningService(Path(folder), MODELS, settings=settings) as service:
                figures += uvloop.run(_ask(service.url, model, per_s))
    return figures


async def _ask(url: str, model: str, per_s: float) -> list[Figure]:
    chance, told = random.Random(7), list[Told]()
    async with Load(url, CONNECTIONS) as load, asyncio.TaskGroup() as tasks:
        for number in range(BEFORE + JOBS):
            await asyncio.sleep(chance.expovariate(per_s))
            tasks.create_task(_one(load, model, chance.random(), told if number >= BEFORE else []))
    async with Load(url, 1) as load:
        starts = [await _started_at(load, job_id) for job_id, _ in told]
    p50 = sum(at <= start["p50_at"] for at, (_, start) in zip(starts, told, strict=True)) / len(told)
    p90 = sum(at <= start["p90_at"] for at, (_, start) in zip(starts, told, strict=True)) / len(told)
    ratio = statistics.median(start["p90_s"] / start["p50_s"] for _, start in told)
    waits = statistics.median(start["p50_s"] for _, start in told)
    print(
        f"  {model}: {len(told)} of {JOBS} jobs had to wait, {waits:.3f} s in the median; {p50:.0%} started by their "
        f"p50, {p90:.0%} by their p90, p90/p50 {ratio:.2f}",
        flush=True,
    )
    return [
        _figure(f"{model}: share that starts by its p50, away from 0.5", abs(p50 - 0.5), 0.1),
        _figure(f"{model}: share that starts by its p90, away from 0.9", abs(p90 - 0.9), 0.05),
        _figure(f"{model}: median p90/p50", ratio, 3.0),
    ]


def _figure(question: str, measured: float, goal: float) -> Figure:
    return Figure(question=question, measured=measured, goal=goal, at_least=False)


async def _one(load: Load, model: str, value: float, told: list[Told]) -> None:
    """Submit a job, and note what is told of it unless it starts at once."""
    async with load.connection() as connection:
        body = json.dumps({"model": model, "input": value}).encode()
        status, answer = await connection.ask(load.post("/v1/jobs", body))
        assert status == 202, answer
        job_id = json.loads(answer)["id"]
        while True:
            _, answer = await connection.ask(load.get(f"/v1/jobs/{job_id}/explain"))
            found = json.loads(answer)
            if found["causes"][0]["code"] != "not_visible_yet":
                break
            await asyncio.sleep(VISIBLE_AFTER_S)
    start = found.get("expected_start")
    if start is not None and start["p50_s"] > 0:
        told.append((job_id, start))


async def _started_at(load: Load, job_id: str) -> str:
    async with load.connection() as connection:
        _, answer = await connection.ask(load.get(f"/v1/jobs/{job_id}?wait=30"))
    return str(json.loads(answer)["started_at"])
