"""How many jobs per second go through the whole service with a model that does nothing, load generator included?

Submit all over 32 connections, then look each result up over HTTP, oldest first, until it is there: first submit to
last result seen.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import uvloop

from benchmarks.load import round_trip_rate
from benchmarks.processes import cpu_s
from benchmarks.report import Figure, spread
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"
JOBS = 10_000
ROUNDS = 3


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"trusted_models": "echo", "models": "echo", "log_level": "warning"}
        with RunningService(Path(folder), MODELS, settings=settings) as service:
            uvloop.run(round_trip_rate(service.url, 1000))
            before_s = cpu_s([service.pid])
            rates = [uvloop.run(round_trip_rate(service.url, JOBS)) for _ in range(ROUNDS)]
            used_s = cpu_s([service.pid]) - before_s
    used_us = used_s / (ROUNDS * JOBS) * 1e6
    print(f"  {spread(rates)} jobs/s, {used_us:.0f} microseconds of service CPU per job, runners included")
    return [
        Figure(
            question="end to end, no-op model", measured=statistics.median(rates), goal=1000, at_least=True, unit="/s"
        )
    ]
