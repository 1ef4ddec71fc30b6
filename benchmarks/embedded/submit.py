"""How much of a bare FastAPI route's rate is left when every 202 is a durable write?

The floor and the service take the same 1 KB JSON on the same server, in turns; the median of the rounds counts. The
submit path is measured with the roles `api` and `projector`; the last row has the whole service run the jobs meanwhile.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from pathlib import Path

import uvloop

from benchmarks.floor import running_floor
from benchmarks.load import SIMPLE, submit_rate
from benchmarks.report import Figure, spread
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"
REQUESTS = 10_000
WARM_UP = 1_000
ROUNDS = 5


def measure() -> list[Figure]:
    with contextlib.ExitStack() as stack:
        urls = {"floor": stack.enter_context(running_floor())[0]}
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


async def _rate(url: str) -> float:
    """Submits per second."""
    await submit_rate(url, "/inference", SIMPLE, WARM_UP)
    return await submit_rate(url, "/inference", SIMPLE, REQUESTS)
