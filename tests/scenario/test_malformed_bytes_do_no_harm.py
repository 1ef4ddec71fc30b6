"""Whatever bytes come over a socket, no answer is a 5xx, memory stays, and an honest client is served all along."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.fuzz.malformed import CLOSED, Answered, Malformed, malformed, send_all
from tests.scenario.conftest import Start, StartRoles

from forebay.testing.service import RunningService

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "2000"))
BACKENDS = ["embedded", "kafka"] if "FUZZ_REQUESTS" in os.environ else ["embedded"]
"""None of these requests gets beyond the API; `make fuzz` sends them to both all the same."""

SEED = int(os.environ.get("FUZZ_SEED", "1"))
CONNECTIONS = 16
GROWTH_MB = 64

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(120 + REQUESTS // 20)]


def peak_mb(pid: int) -> float:
    """The most memory that the process had at once; where nobody tells that, what it has now."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) / 1024


async def serve_honestly(url: str, attack: asyncio.Future[Any]) -> int:
    """How many jobs came back right, one after the other, until the attack is over."""
    served = 0
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        while not attack.done():
            job = {"model": "echo", "input": {"n": served}}
            answer = await http.post("/v1/jobs", json=job, headers={"prefer": "wait=30"})
            assert (answer.status_code, answer.json().get("output")) == (200, job["input"])
            served += 1
    return served


@pytest.fixture(params=BACKENDS)
def service(request: pytest.FixtureRequest) -> RunningService:
    if request.param == "embedded":
        start: Start = request.getfixturevalue("start")
        return start("echo")
    roles_on_kafka: StartRoles = request.getfixturevalue("roles_on_kafka")
    return roles_on_kafka("echo").start("api", "worker", "projector", "scheduler")


def test_no_5xx_no_growth_and_the_honest_are_served(service: RunningService) -> None:
    before_mb = peak_mb(service.pid)

    async def attack() -> tuple[list[tuple[Malformed, Answered]], int]:
        sending = asyncio.create_task(send_all(service.url, malformed(REQUESTS, SEED), CONNECTIONS))
        served = await serve_honestly(service.url, sending)
        return await sending, served

    answers, served = asyncio.run(attack())
    unforeseen = Counter((one.kind, got.status) for one, got in answers if got.status not in one.expected)
    assert not unforeseen, service.log_tail()
    assert {got.media_type for _, got in answers if got.status >= 400} == {"application/problem+json"}
    told = {one.kind for one, got in answers if got.status != CLOSED}
    assert told == {one.kind for one, _ in answers if one.expected != {CLOSED}}
    assert served
    assert not service.gone
    assert peak_mb(service.pid) - before_mb <= GROWTH_MB
    assert '"level":"error"' not in service.log_file.read_text()
