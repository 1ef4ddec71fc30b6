"""How long from submit to the result being visible on Kafka and PostgreSQL, beyond the model's own time, one in flight?

Submitted with POST /v1/jobs, waited for with GET ?wait=, as a client that wants the answer soon would; the model does
nothing, and what it took all the same (`metrics.predict_s`) is taken off.
"""

from __future__ import annotations

import statistics

import uvloop

from benchmarks.kafka.service import kafka_service
from benchmarks.load import round_trips_ms
from benchmarks.report import Figure

JOBS = 1000
WARM_UP = 1000
"""So long does Java compile what the broker does for one job at a time."""


def measure() -> list[Figure]:
    with kafka_service("echo", roles=("projector", "scheduler", "worker", "api")) as service:
        url = service.stack().url
        uvloop.run(round_trips_ms(url, WARM_UP))
        took_ms = sorted(uvloop.run(round_trips_ms(url, JOBS)))
    p50, p99 = statistics.median(took_ms), took_ms[int(len(took_ms) * 0.99) - 1]
    print(f"  p50 {p50:.2f} ms, p99 {p99:.2f} ms over {JOBS} jobs")
    return [
        Figure(
            question="Kafka: submit to result visible beyond the model's time, one in flight, p50",
            measured=p50,
            goal=12,
            at_least=False,
            unit=" ms",
        )
    ]
