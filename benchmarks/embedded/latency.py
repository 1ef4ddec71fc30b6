"""How long from submit to the result being visible, beyond the model's own time, with one job in flight?

Submitted with POST /v1/jobs, waited for with GET ?wait=, as a client that wants the answer soon would; the model does
nothing, and what it took all the same (`metrics.predict_s`) is taken off.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import uvloop

from benchmarks.load import round_trips_ms
from benchmarks.report import Figure
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"
JOBS = 1000


def measure() -> list[Figure]:
    figures = []
    for synchronous in ("normal", "full"):
        with tempfile.TemporaryDirectory() as folder:
            settings = {"trusted_models": "echo", "models": "echo", "log_level": "warning", "synchronous": synchronous}
            with RunningService(Path(folder), MODELS, settings=settings) as service:
                uvloop.run(round_trips_ms(service.url, 100))
                latencies_ms = sorted(uvloop.run(round_trips_ms(service.url, JOBS)))
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
