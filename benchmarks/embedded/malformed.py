"""What does an honest client feel of 2,000 malformed requests, and what do they leave in memory?

One client submits a job that does nothing and waits for its result, again and again: alone, while another process
sends the requests of tests/fuzz/malformed.py at a steady rate, and while it sends them over a few connections as fast
as they are answered, which no goal is set for, since that takes all of a core. In turns; the latencies of all turns
together.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from tests.fuzz.malformed import CLOSED, Answered, Malformed, malformed, send, send_all

from benchmarks.client import Connection, Load
from benchmarks.processes import resident_mb
from benchmarks.report import Figure
from forebay.testing.service import RunningService

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = 2000
RATE_PER_S = 200
CONNECTIONS = 4
TURNS = 3
ALONE_S = 3.0


def measure() -> list[Figure]:
    settings = {"trusted_models": "echo", "models": "echo", "log_level": "error"}
    alone_ms: list[float] = []
    beside_ms: dict[str, list[float]] = {"steady": [], "greedy": []}
    told: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningService(Path(folder), ROOT / "tests" / "models", settings=settings) as service,
    ):
        uvloop.run(_round_trips_ms(service.url, _for_s(ALONE_S)))
        before_mb = resident_mb(service.pid)
        for turn in range(TURNS):
            alone_ms += uvloop.run(_round_trips_ms(service.url, _for_s(ALONE_S)))
            for pace, took_ms in beside_ms.items():
                command = [sys.executable, "-m", "benchmarks.embedded.malformed", service.url, str(turn), pace]
                with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as attack:
                    assert attack.stdout is not None
                    attack.stdout.readline()  # the requests are made and begin to be sent
                    took_ms += uvloop.run(_round_trips_ms(service.url, lambda: attack.poll() is None))
                    told.update(attack.stdout.read().split())
        grown_mb = resident_mb(service.pid) - before_mb
    print(f"  answers: {', '.join(f'{count} x {status}' for status, count in sorted(told.items()))}")
    print(f"  p99 alone {_p99(alone_ms):.2f} ms of {len(alone_ms)} jobs")
    for pace, took_ms in beside_ms.items():
        print(f"  p99 beside the {pace} one {_p99(took_ms):.2f} ms of {len(took_ms)} jobs")
    faults = sum(count for status, count in told.items() if status.startswith("5"))
    return [
        Figure(question="5xx to malformed requests", measured=faults, goal=0, at_least=False),
        Figure(question="memory after malformed requests", measured=grown_mb, goal=64, at_least=False, unit=" MB"),
        Figure(
            question=f"an honest client's p99 beside {RATE_PER_S} malformed requests/s, of its own alone",
            measured=_p99(beside_ms["steady"]) / _p99(alone_ms),
            goal=2,
            at_least=False,
        ),
    ]


def attack(url: str, seed: int, pace: str) -> None:
    """Print an empty line when the requests are made, and then the status of each answer. The attacker has machines of
    their own in life, so here they leave the cores to the service and its client."""
    os.nice(19)
    requests = list(malformed(REQUESTS, seed))
    print(flush=True)
    if pace == "greedy":
        answers = [answer for _, answer in uvloop.run(send_all(url, requests, CONNECTIONS))]
    else:
        answers = uvloop.run(_send_steadily(url, requests))
    for answer in answers:
        print("closed" if answer.status == CLOSED else answer.status)


async def _send_steadily(url: str, requests: Sequence[Malformed]) -> list[Answered]:
    began = time.monotonic()
    sending = []
    async with asyncio.TaskGroup() as tasks:
        for number, request in enumerate(requests):
            await asyncio.sleep(began + number / RATE_PER_S - time.monotonic())
            sending.append(tasks.create_task(send(url, request)))
    return [task.result() for task in sending]


async def _round_trips_ms(url: str, going_on: Callable[[], bool]) -> list[float]:
    took_ms: list[float] = []
    async with Load(url, 1) as load:
        request = load.post("/v1/jobs", b'{"model": "echo", "input": 1}', headers="Prefer: wait=30\r\n")

        async def ask(connection: Connection, number: int) -> None:
            while going_on():
                began = time.perf_counter()
                status, _ = await connection.ask(request)
                took_ms.append((time.perf_counter() - began) * 1000)
                if status != 200:
                    raise RuntimeError(f"an honest client was answered {status}")

        await load.each(1, ask)
    return took_ms


def _for_s(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


if __name__ == "__main__":
    attack(sys.argv[1], int(sys.argv[2]), sys.argv[3])
