"""How many jobs per second go through the whole service on Kafka and PostgreSQL with a model that does nothing, beside
FastAPI + Taskiq + Redis stream and FastAPI + Celery + Redis?

One stack at a time, with the load generator, on the same cores. Of ours each role is a process (api, worker and its
runner, projector, scheduler, Kafka, PostgreSQL), of theirs too (API, one worker, Redis). Submit all over 32
connections, then look each result up over HTTP, oldest first, until it is there: first submit to last result seen. The
peers are measured before ours and again after, so that a host that grows slower or faster favours nobody.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import uvloop

from benchmarks.kafka.service import kafka_service
from benchmarks.load import round_trip_rate
from benchmarks.peers.environment import versions
from benchmarks.peers.stacks import celery, taskiq
from benchmarks.processes import cpu_by_role
from benchmarks.report import Figure, spread
from benchmarks.stack import Stack

JOBS = 10_000
PEER_JOBS = 5_000
ROUNDS = 4
PEER_ROUNDS = 2  # before ours, and as many after
WARM_UP = 1_000
WARM_UP_OURS = 6_000
"""More, since Java compiles what is called often, and goes on for some seconds."""


class Measured:
    """Rates and costs of one stack, over all its rounds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rates: list[float] = []
        self.cpu_us: dict[str, list[float]] = {}

    def rounds(self, stack: Stack, rounds: int, jobs: int) -> None:
        for _ in range(rounds):
            before = cpu_by_role(stack.roles)
            self.rates.append(uvloop.run(round_trip_rate(stack.url, jobs)))
            for role, after_s in cpu_by_role(stack.roles).items():
                self.cpu_us.setdefault(role, []).append((after_s - before[role]) / jobs * 1e6)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    def __str__(self) -> str:
        roles = {role: statistics.median(values) for role, values in self.cpu_us.items()}
        parts = ", ".join(f"{role} {cpu_us:.0f}" for role, cpu_us in roles.items())
        return (
            f"  {self.name:36} {spread(self.rates):>18} jobs/s\n"
            f"  {'':36} {sum(roles.values()):.0f} microseconds of server CPU per job: {parts}"
        )


def measure() -> list[Figure]:
    peers = {
        celery: Measured("FastAPI + Celery + Redis, acks late"),
        taskiq: Measured("FastAPI + Taskiq + Redis stream"),
    }
    ours = Measured("Forebay on Kafka + PostgreSQL")
    for peer, measured in peers.items():
        _measure(peer, measured, PEER_ROUNDS, PEER_JOBS, WARM_UP)
    print(f"  beside: {versions()}", flush=True)
    _measure(_forebay, ours, ROUNDS, JOBS, WARM_UP_OURS)
    for peer, measured in peers.items():
        _measure(peer, measured, PEER_ROUNDS, PEER_JOBS, WARM_UP)
    for measured in (*peers.values(), ours):
        print(measured)
    goals = {celery: ("FastAPI + Celery + Redis", 4), taskiq: ("FastAPI + Taskiq + Redis", 3)}
    return [
        Figure(
            question=f"Kafka: end to end, no-op model, of {name}",
            measured=ours.rate / peers[peer].rate,
            goal=goal,
            at_least=True,
        )
        for peer, (name, goal) in goals.items()
    ]


@contextmanager
def _forebay() -> Iterator[Stack]:
    with kafka_service("echo", roles=("projector", "scheduler", "worker", "api")) as service:
        yield service.stack()


def _measure(
    start: Callable[[], AbstractContextManager[Stack]], measured: Measured, rounds: int, jobs: int, warm_up: int
) -> None:
    with start() as stack:
        uvloop.run(round_trip_rate(stack.url, warm_up))
        measured.rounds(stack, rounds, jobs)
