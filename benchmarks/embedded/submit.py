"""How much of a bare FastAPI route's rate is left when every 202 is a durable write?

The floor and the service take the same 1 KB JSON on the same server, in turns; the median of the rounds counts. The
submit path is measured with the roles `api` and `projector`; the last row has the whole service run the jobs meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from benchmarks.client import Connection, Load
from benchmarks.report import Figure, spread
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parent.parent / "tests" / "models"
CONNECTIONS = 32
REQUESTS = 10_000
WARM_UP = 1_000
ROUNDS = 5
BODY = json.dumps({"model_name": "echo", "data": "x" * 1000}).encode()


def measure() -> list[Figure]:
    with contextlib.ExitStack() as stack:
        urls = {"floor": stack.enter_context(_floor())}
        for synchronous in ("normal", "full"):
            urls[synchronous] = _service(stack, synchronous, ("api", "projector"))
        urls["whole service"] = _service(stack, "normal", ())
        rates: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(ROUNDS):
            for name, url in urls.items():
                rates[name].append(uvloop.run(_rate(url)))
    for name, values in rates.items():
        print(f"  {name:14} {spread(values):>22} submits/s")
    floor = statistics.median(rates["floor"])
    return [
        Figure(question=question, measured=statistics.median(rates[name]) / floor, goal=0.5, at_least=True)
        for name, question in (
            ("normal", "submit/s of the floor, class process (synchronous=normal)"),
            ("full", "submit/s of the floor, class flushed (synchronous=full)"),
        )
    ]


def _service(stack: contextlib.ExitStack, synchronous: str, roles: tuple[str, ...]) -> str:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    settings = {"synchronous": synchronous, "trusted_models": "echo", "models": "echo", "log_level": "warning"}
    settings["secrets"] = "no secret but long enough"  # roles that run apart must be given one
    return stack.enter_context(RunningService(Path(folder), MODELS, settings=settings, roles=roles)).url


@contextlib.contextmanager
def _floor() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.floor", str(port_file)])
        try:
            while not (port_file.exists() and port_file.read_text()):
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port_file.read_text()}"
        finally:
            process.kill()
            process.wait()


async def _rate(url: str) -> float:
    """Submits per second."""
    async with Load(url, CONNECTIONS) as load:
        request = load.post("/inference", BODY)

        async def submit(connection: Connection, number: int) -> None:
            status, body = await connection.ask(request)
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")

        await load.each(WARM_UP, submit)
        began = time.perf_counter()
        await load.each(REQUESTS, submit)
        return REQUESTS / (time.perf_counter() - began)
