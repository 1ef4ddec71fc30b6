"""What clients do: submit as fast as they can, look results up. The same for every service that is measured."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Sequence

from benchmarks.client import Connection, Load

CONNECTIONS = 32
POLL_S = 0.005
GIVE_UP_S = 120.0
INPUT_CHARACTERS = 1000


def inputs(count: int = 64) -> list[str]:
    """Texts of 1,000 characters, all different and of the entropy of base64: no compression makes them vanish. The same
    at every call."""
    randomness = random.Random(20261125)
    return [base64.b64encode(randomness.randbytes(INPUT_CHARACTERS * 3 // 4)).decode() for _ in range(count)]


SIMPLE = [json.dumps({"model_name": "echo", "data": text}).encode() for text in inputs()]
"""Bodies of `POST /inference`."""

JOBS = [json.dumps({"model": "echo", "input": text}).encode() for text in inputs()]
"""Bodies of `POST /v1/jobs`."""


async def submit_rate(url: str, path: str, bodies: Sequence[bytes], count: int) -> float:
    """Submits per second."""
    async with Load(url, CONNECTIONS) as load:
        requests = [load.post(path, body) for body in bodies]

        async def submit(connection: Connection, number: int) -> None:
            status, body = await connection.ask(requests[number % len(requests)])
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")

        began = time.perf_counter()
        await load.each(count, submit)
        return count / (time.perf_counter() - began)


async def round_trip_rate(url: str, count: int) -> float:
    """Jobs per second from the first submit to the last result seen: submit all, then look each result up over HTTP,
    oldest first, until it is there."""
    ids = [""] * count
    async with Load(url, CONNECTIONS) as load:
        requests = [load.post("/inference", body) for body in SIMPLE]

        async def submit(connection: Connection, number: int) -> None:
            status, body = await connection.ask(requests[number % len(requests)])
            if status != 202:
                raise RuntimeError(f"{status}: {body[:300]!r}")
            ids[number] = json.loads(body)["request_id"]

        async def see(connection: Connection, number: int) -> None:
            request = load.get(f"/result/{ids[number]}")
            while True:
                status, body = await connection.ask(request)
                if status == 200:
                    if b'"succeeded"' not in body:
                        raise RuntimeError(body[:300])
                    return
                if status != 202 or time.perf_counter() - began > GIVE_UP_S:
                    raise RuntimeError(f"{status} after {time.perf_counter() - began:.0f} s: {body[:300]!r}")
                await asyncio.sleep(POLL_S)

        began = time.perf_counter()
        await load.each(count, submit)
        await load.each(count, see)
        return count / (time.perf_counter() - began)


async def round_trips_ms(url: str, count: int) -> list[float]:
    """How long each job took from submit to its result being visible, one in flight: `POST /v1/jobs`, then
    `GET ?wait=`, as a client that wants the answer soon. What the model took (`metrics.predict_s`) is taken off."""
    took_ms: list[float] = []
    async with Load(url, 1) as load:
        requests = [load.post("/v1/jobs", body) for body in JOBS]

        async def one(connection: Connection, number: int) -> None:
            began = time.perf_counter()
            _, accepted = await connection.ask(requests[number % len(requests)])
            _, seen = await connection.ask(load.get(f"/v1/jobs/{json.loads(accepted)['id']}?wait=10"))
            took_s = time.perf_counter() - began
            job = json.loads(seen)
            if job["status"] != "succeeded":
                raise RuntimeError(seen[:300])
            took_ms.append((took_s - job["metrics"]["predict_s"]) * 1e3)

        await load.each(count, one)
    return took_ms
