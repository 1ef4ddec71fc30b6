"""Images per second through the service, against a bare loop in one process over the same JPEG files on the same cores.

The service is measured from the first submit to the last result.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.bare_loop import PHOTOS, ROOT, best_loop, loop_rate
from benchmarks.client import Connection, Load
from benchmarks.report import Figure, spread
from forebay.testing.service import RunningService

IMAGES = 1500
ROUNDS = 3


def measure() -> list[Figure]:
    settings = {"models": "image_classification", "log_level": "warning"}
    size, threads = best_loop()
    print(f"  best bare loop: batches of {size}, {threads} threads")
    loop, service = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningService(Path(folder), ROOT / "models", settings=settings) as running,
    ):
        uvloop.run(_service_rate(running.url, 100))
        for _ in range(ROUNDS):
            loop.append(loop_rate(size, threads, IMAGES))
            service.append(uvloop.run(_service_rate(running.url, IMAGES)))
    print(f"  bare loop {spread(loop)} images/s, service {spread(service)} images/s")
    return [
        Figure(
            question="EfficientNet-Lite0 images/s of the bare loop",
            measured=statistics.median(service) / statistics.median(loop),
            goal=0.9,
            at_least=True,
        )
    ]


async def _service_rate(url: str, count: int) -> float:
    ids = [""] * count
    async with Load(url, 8) as load:
        requests = [load.post("/v1/models/image_classification/jobs", photo, "image/jpeg") for photo in PHOTOS]

        async def submit(connection: Connection, number: int) -> None:
            status, body = await connection.ask(requests[number % len(requests)])
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")
            ids[number] = json.loads(body)["id"]

        async def see(connection: Connection, number: int) -> None:
            while True:
                _, body = await connection.ask(load.get(f"/v1/jobs/{ids[number]}?wait=60"))
                if b'"succeeded"' in body:
                    return
                if b'"failed"' in body:
                    raise RuntimeError(body[:300])

        began = time.perf_counter()
        await load.each(count, submit)
        await load.each(count, see)
        return count / (time.perf_counter() - began)
