"""What does a healthy receiver feel of 50 that take every message and never answer, and what do they leave in memory?

One tenant has 51 endpoints, and every job is told to all of them: 10 jobs a second for a minute, so 500 messages a
second for receivers that say nothing until the try's timeout of 15 s. `forebay run webhooks` on Kafka and PostgreSQL,
the other roles in processes of their own. From the job's end, by the worker's clock, to the message's arrival at the
healthy receiver, on the same machine; memory is the dispatcher's, the most of the minute less what it had when ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.client import Connection, Load
from benchmarks.kafka.service import kafka_service
from benchmarks.load import inputs
from benchmarks.processes import resident_mb
from benchmarks.report import Figure
from benchmarks.webhooks.receiver import running_receiver
from benchmarks.webhooks.settings import sends_to
from dev.kafka.ports import HOST
from forebay.testing.service import RunningService

TARPITS = 50
JOBS_PER_S = 10
SECONDS = 60
WITHIN_S = 30.0


def measure() -> list[Figure]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = stack.enter_context(running_receiver(folder))
        service = stack.enter_context(kafka_service("echo", roles=("projector", "worker")))
        service.settings.update(sends_to(receiver))
        api, dispatcher = service.start("api"), service.start("webhooks")
        paths = ["hook", *(f"tarpit/{number}" for number in range(TARPITS))]
        uvloop.run(_add_endpoints(api, [f"http://{HOST}:{receiver.port}/{path}" for path in paths]))
        before_mb = resident_mb(dispatcher.pid)
        most_mb = uvloop.run(_submit(api, dispatcher))
        receiver.until(JOBS_PER_S * SECONDS, WITHIN_S)
        delays_s, unanswered = sorted(receiver.delays_s()), receiver.unanswered()
    p99_s = statistics.quantiles(delays_s, n=100)[98]
    print(
        f"  {len(delays_s)} messages to the healthy one: p50 {statistics.median(delays_s):.3f} s, p99 {p99_s:.3f} s, "
        f"the slowest {delays_s[-1]:.3f} s; {unanswered} to the others"
        f"; the dispatcher had {before_mb:.1f} MB, and {most_mb:.1f} MB at most"
    )
    return [
        Figure(
            question=f"final to delivered beside {TARPITS} tarpits, p99",
            measured=p99_s,
            goal=2,
            at_least=False,
            unit=" s",
        ),
        Figure(
            question="the dispatcher's memory beside them, more than at its start",
            measured=most_mb - before_mb,
            goal=50,
            at_least=False,
            unit=" MB",
        ),
    ]


async def _add_endpoints(api: RunningService, urls: list[str]) -> None:
    async with Load(api.url, 1) as load, load.connection() as connection:
        for url in urls:
            await _ask(connection, load.post("/v1/webhook-endpoints", json.dumps({"url": url}).encode()), 201)
    await asyncio.sleep(5.0)  # services that run know of a change within 5 s (docs/webhooks.md)


async def _submit(api: RunningService, dispatcher: RunningService) -> float:
    """At a steady rate; the dispatcher's highest resident memory meanwhile."""
    most_mb = 0.0
    async with Load(api.url, 1) as load, load.connection() as connection:
        requests = [load.post("/v1/jobs", json.dumps({"model": "echo", "input": text}).encode()) for text in inputs()]
        began = time.monotonic()
        for number in range(JOBS_PER_S * SECONDS):
            await asyncio.sleep(max(0.0, began + number / JOBS_PER_S - time.monotonic()))
            await _ask(connection, requests[number % len(requests)], 202)
            most_mb = max(most_mb, resident_mb(dispatcher.pid))
    return most_mb


async def _ask(connection: Connection, request: bytes, expected: int) -> None:
    status, body = await connection.ask(request)
    if status != expected:
        raise RuntimeError(f"{status}: {body[:300]!r}")
