"""What is left of a bare aiohttp loop's deliveries when each is taken from an outbox, written down and settled?

5,000 jobs are final and each has a webhook to one receiver, a result of 1 KB in it. One process sends them all, until
all are settled and not only sent: on SQLite `forebay run projector webhooks`, with the projector, which reads every try
that is written down; on Kafka and PostgreSQL `forebay run webhooks`, while the projector works beside it. In turns with
a process that sends the same bytes, signed, to the same receiver, which answers 204.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import apsw
import msgspec
import uvloop
from msgspec import Struct

from benchmarks.client import Connection, Load
from benchmarks.kafka.service import KafkaService, kafka_service
from benchmarks.load import inputs
from benchmarks.processes import cpu_s
from benchmarks.programs import Program
from benchmarks.report import Figure, spread
from benchmarks.webhooks.receiver import Receiver, running_receiver, until
from benchmarks.webhooks.settings import sends_to
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"
MESSAGES = 5_000
ROUNDS = 5
WITHIN_S = 120.0
LOOP = "bare aiohttp loop"


class Sending(Struct, frozen=True):
    """A process that has the receiver's first answers to wait for. `settled()`: nothing is left to do."""

    pid: int
    settled: Callable[[], bool] = lambda: True


class Costs(Struct, frozen=True):
    """Of each round: deliveries per second, and microseconds of processor time for each."""

    rates: list[float]
    cpu_us: list[float]


def measure() -> list[Figure]:
    figures = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        receiver = stack.enter_context(running_receiver(folder))
        filled, messages = folder / "filled", folder / "messages"
        _fill_sqlite(filled, receiver)
        messages.write_bytes(msgspec.msgpack.encode(_messages(filled)))
        loop = partial(_loop, folder, messages, receiver)
        figures += _compare("SQLite", receiver, loop, partial(_on_sqlite, filled, receiver))
        with kafka_service("echo", roles=("projector",)) as service:
            service.settings.update(sends_to(receiver))
            service.start("worker")
            service.start("api")
            figures += _compare("Kafka + PostgreSQL", receiver, loop, partial(_on_kafka, service, receiver))
    return figures


def _compare(
    name: str,
    receiver: Receiver,
    loop: Callable[[], AbstractContextManager[Sending]],
    ours: Callable[[], AbstractContextManager[Sending]],
) -> list[Figure]:
    costs = {LOOP: Costs([], []), name: Costs([], [])}
    for _ in range(ROUNDS):
        for who, start in ((LOOP, loop), (name, ours)):
            receiver.hold()
            with start() as sending:
                _round(sending, receiver, costs[who])
    for who, cost in costs.items():
        print(f"  {who:18} {spread(cost.rates):>20} deliveries/s, {spread(cost.cpu_us):>13} us of CPU each", flush=True)
    bare, our = costs[LOOP], costs[name]
    rate = statistics.median(our.rates) / statistics.median(bare.rates)
    cpu = statistics.median(bare.cpu_us) / statistics.median(our.cpu_us)
    return [
        Figure(question=f"{name}: deliveries/s of the bare loop", measured=rate, goal=0.6, at_least=True),
        Figure(question=f"{name}: the bare loop's CPU per delivery, of ours", measured=cpu, goal=0.6, at_least=True),
    ]


def _round(sending: Sending, receiver: Receiver, costs: Costs) -> None:
    """The receiver is holding its answers."""
    receiver.until(1, WITHIN_S)
    cpu, began = cpu_s([sending.pid]), time.perf_counter()
    receiver.go()
    receiver.until(MESSAGES, WITHIN_S)
    until(sending.settled, WITHIN_S, "settling")
    took_s = time.perf_counter() - began
    costs.rates.append(MESSAGES / took_s)
    costs.cpu_us.append((cpu_s([sending.pid]) - cpu) / MESSAGES * 1e6)
    if receiver.count() != MESSAGES:
        raise RuntimeError(f"{receiver.count()} messages came, not {MESSAGES}")


@contextlib.contextmanager
def _loop(folder: Path, messages: Path, receiver: Receiver) -> Iterator[Sending]:
    command = [sys.executable, "-m", "benchmarks.webhooks.bare_loop", str(messages), receiver.url]
    with Program(command, folder / "loop.log") as program:
        yield Sending(program.pid)


@contextlib.contextmanager
def _on_sqlite(filled: Path, receiver: Receiver) -> Iterator[Sending]:
    with tempfile.TemporaryDirectory(dir=filled.parent) as folder:
        data_dir = Path(folder) / "data"
        shutil.copytree(filled, data_dir)
        with RunningService(data_dir, MODELS, settings=_settings(receiver), roles=("projector", "webhooks")) as service:
            yield Sending(service.pid, lambda: _is_settled(service))


@contextlib.contextmanager
def _on_kafka(service: KafkaService, receiver: Receiver) -> Iterator[Sending]:
    uvloop.run(_submit(service.role("api").url, receiver))
    _until_final(service.role("projector"))
    process = service.start("webhooks")
    try:
        yield Sending(process.pid, lambda: _is_settled(process))
    finally:
        service.stop("webhooks")


def _fill_sqlite(folder: Path, receiver: Receiver) -> None:
    roles = ("api", "worker", "projector")
    with RunningService(folder, MODELS, settings=_settings(receiver), roles=roles) as service:
        uvloop.run(_submit(service.url, receiver))
        _until_final(service)
        service.stop()


def _until_final(service: RunningService) -> None:
    until(lambda: _metrics(service)["forebay_webhooks_pending"] == MESSAGES, WITHIN_S, "the jobs' ends")


async def _submit(url: str, receiver: Receiver) -> None:
    """Each job tells the receiver when it is final."""
    async with Load(url, 32) as load:
        hook = {"url": receiver.url}
        requests = [
            load.post("/v1/jobs", json.dumps({"model": "echo", "input": text, "webhook": hook}).encode())
            for text in inputs()
        ]

        async def submit(connection: Connection, number: int) -> None:
            status, body = await connection.ask(requests[number % len(requests)])
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")

        await load.each(MESSAGES, submit)


def _messages(folder: Path) -> list[tuple[str, bytes]]:
    """What the outbox holds."""
    with contextlib.closing(apsw.Connection(str(folder / "forebay.db"))) as database:
        return [(str(row[0]), bytes(row[1])) for row in database.execute("SELECT id, body FROM deliveries")]


def _settings(receiver: Receiver) -> Mapping[str, str]:
    return {
        "models": "echo",
        "trusted_models": "echo",
        "log_level": "warning",
        "secrets": "no secret but long enough",  # roles that run apart must be given one
        **sends_to(receiver),
    }


def _is_settled(service: RunningService) -> bool:
    metrics = _metrics(service)
    return metrics["forebay_webhooks_pending"] == 0 and metrics.get("forebay_projector_lag_seconds", 0.0) == 0


def _metrics(service: RunningService) -> Mapping[str, float]:
    """Those without labels."""
    with urllib.request.urlopen(f"{service.admin_url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    pairs = [line.split() for line in lines if not line.startswith("#") and "{" not in line]
    return {name: float(value) for name, value in pairs}
