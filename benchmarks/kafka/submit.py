"""How much of a bare FastAPI route's rate is left when every 202 is written to Kafka with acks=all?

One API process, the broker and the load generator share the cores, and nothing else runs; floor and API in turns, the
median of the rounds counts. The last rows have the whole service run the jobs meanwhile.
"""

from __future__ import annotations

import contextlib
import statistics

import uvloop

from benchmarks.floor import running_floor
from benchmarks.kafka.service import kafka_service
from benchmarks.load import JOBS, submit_rate
from benchmarks.processes import cpu_s
from benchmarks.report import Figure, spread

PATH = "/v1/jobs"
REQUESTS = 10_000
WARM_UP = 30_000
"""Until Java has compiled what the broker runs, with CPU time of all; a broker that serves has long done so."""

ROUNDS = 5
ROUNDS_WHOLE = 2


def measure() -> list[Figure]:
    with contextlib.ExitStack() as stack:
        floor_url, floor_pid = stack.enter_context(running_floor())
        service = stack.enter_context(kafka_service("echo"))
        api = service.start("api")
        under_test = {"floor": (floor_url, [floor_pid]), "on Kafka": (api.url, [api.pid, service.broker.pid])}
        rates: dict[str, list[float]] = {name: [] for name in [*under_test, "on Kafka, whole service"]}
        cpu_us: dict[str, list[list[float]]] = {name: [] for name in under_test}
        for url, _ in under_test.values():
            _rate(url, WARM_UP)
        for _ in range(ROUNDS):
            for name, (url, pids) in under_test.items():
                before = [cpu_s([pid]) for pid in pids]
                rates[name].append(_rate(url, REQUESTS))
                spent = [cpu_s([pid]) - before_s for pid, before_s in zip(pids, before, strict=True)]
                cpu_us[name].append([each / REQUESTS * 1e6 for each in spent])
        for role in ("worker", "projector", "scheduler"):
            service.start(role)
        rates["on Kafka, whole service"] = [_rate(api.url, REQUESTS) for _ in range(ROUNDS_WHOLE)]
    for name, values in rates.items():
        costs = [f"{statistics.median(each):.0f}" for each in zip(*cpu_us.get(name, []), strict=True)]
        print(f"  {name:24} {spread(values):>22} submits/s{_said(costs)}")
    floor = statistics.median(rates["floor"])
    return [
        Figure(
            question="Kafka: submit/s of the floor, per API process, acks=all",
            measured=statistics.median(rates["on Kafka"]) / floor,
            goal=0.65,
            at_least=True,
        )
    ]


def _said(costs: list[str]) -> str:
    return f", microseconds of CPU each: {' + '.join(costs)} (server + broker)" if costs else ""


def _rate(url: str, count: int) -> float:
    return uvloop.run(submit_rate(url, PATH, JOBS, count))
