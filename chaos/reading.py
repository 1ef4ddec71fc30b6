"""Jobs as a client reads them, and the last readings of a run."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Collection, Sequence

import aiohttp

from chaos.history import FINAL, Seen

PATIENCE_S = 60.0
"""How long a client waits for an answer: longer than a process is held."""

AFTER_FAILURE_S = 0.05
POLL_S = 2
FINAL_READERS = 16

UNANSWERED = (aiohttp.ClientError, OSError, TimeoutError)
BROKEN_OFF = (*UNANSWERED, ValueError)
"""ValueError: what came is no JSON."""


def session(token: str = "") -> aiohttp.ClientSession:
    """`token`: the API key that each of its requests brings."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        headers={"authorization": f"Bearer {token}"} if token else None,
    )


async def read(http: aiohttp.ClientSession, url: str, job_id: str, wait_s: int) -> Seen | None:
    """None when nobody answered."""
    asked_at = time.time()
    try:
        async with http.get(f"{url}/v1/jobs/{job_id}", params={"wait": wait_s}) as answer:
            document = json.loads(await answer.read())
    except BROKEN_OFF:  # as the caller is told
        return None
    state = document.get("status", "") if answer.status == 200 else ""
    return Seen(asked_at, time.time(), job_id, answer.status, state, document if state in FINAL else None)


async def read_finals(
    urls: Sequence[str], job_ids: Collection[str], rng: random.Random, within_s: float, token: str = ""
) -> dict[str, Seen]:
    """The last reading of each job: as soon as it is final or is said not to exist, at the latest when the time for all
    of them is over."""
    deadline = time.monotonic() + within_s
    left = deque(sorted(job_ids))
    found: dict[str, Seen] = {}

    async def reader(http: aiohttp.ClientSession) -> None:
        while left:
            job_id = left.popleft()
            while True:
                seen = await read(http, rng.choice(urls), job_id, wait_s=POLL_S)
                if seen is not None:
                    found[job_id] = seen
                if (seen is not None and (seen.job is not None or seen.status == 404)) or time.monotonic() > deadline:
                    break
                if seen is None or seen.status != 200:
                    await asyncio.sleep(AFTER_FAILURE_S)

    async with session(token) as http:
        await asyncio.gather(*(reader(http) for _ in range(FINAL_READERS)))
    return found
