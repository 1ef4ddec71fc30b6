"""`kill -9` of the whole service at random moments while jobs are submitted; afterwards every accepted job is judged.

    python -m chaos.kill_storm --rounds 200

Each round starts the service on the same data folder, submits from several connections without pause, and kills it at a
moment drawn from the seed: while it starts, while it works, at any instruction. Its runners die with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from chaos.checker import Verdict, judge
from chaos.history import History, Submission
from forebay.testing.service import RunningService

MODELS = Path(__file__).resolve().parent.parent / "tests" / "models"
CONNECTIONS = 8
RUN_S = 0.04
BUSY_AT = 20
ENOUGH_BUSY = 0.75
WAITING_AT_MOST = 200
"""Submitting pauses above this many unfinished jobs, so that the storm tests killing and not a growing backlog."""

MAX_LIFE_S = 1.2
"""A kill falls uniformly within this time of the service being spawned; being ready takes about the first half of
it."""


class Storm:
    """One run. `report` is called with a line of progress now and then."""

    def __init__(self, folder: Path, rounds: int, seed: int, synchronous: str) -> None:
        self._rounds = rounds
        self._random = random.Random(seed)
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self._folder = folder
        self._settings = {
            "trusted_models": "oracle",
            "models": "oracle",
            "synchronous": synchronous,
            "log_level": "warning",
        }
        self._service = RunningService(folder / "data", MODELS, settings=self._settings)
        self.history = History()
        self._sent = 0

    def run(self) -> Verdict:
        try:
            asyncio.run(self._storm())
        finally:
            self._service.kill()
        return judge(self.history, self._ledger.read_text(), BUSY_AT)

    def run_to_crash(self, crash_at: str) -> Verdict:
        """One life, ended by the service itself at the crash point; then the last readings."""
        armed = RunningService(self._folder / "data", MODELS, settings={**self._settings, "crash_at": crash_at})
        try:
            armed.start()
            asyncio.run(self._load(armed))
            self.history.kills.append(time.time())
            asyncio.run(self._last_readings())
        finally:
            armed.kill()
            self._service.kill()
        return judge(self.history, self._ledger.read_text(), BUSY_AT)

    async def _storm(self) -> None:
        for number in range(self._rounds):
            await self._round()
            if sys.stderr.isatty() or number % 10 == 9:
                print(
                    f"round {number + 1}/{self._rounds}: {len(self.history.accepted)} accepted, "
                    f"{len(self.history.first_final)} seen final",
                    file=sys.stderr,
                    flush=True,
                )
        await self._last_readings()

    async def _last_readings(self) -> None:
        await asyncio.to_thread(self._service.start)
        async with aiohttp.ClientSession(self._service.url) as session:
            for job_id in self.history.accepted:
                await self._read(session, job_id, wait_s=60)

    async def _round(self) -> None:
        """A life of the service: it is killed after a random time of having been ready (or, now and then, before)."""
        self._service.spawn()
        if self._random.random() < 0.1:
            await asyncio.sleep(self._random.uniform(0.0, 1.0))
        else:
            await asyncio.to_thread(self._service.wait_ready)
            load = asyncio.create_task(self._load(self._service))
            # The random moment is the experiment: there is no condition to wait for.
            await asyncio.sleep(self._random.uniform(0.05, MAX_LIFE_S))
            self._kill()
            await load
            return
        self._kill()

    def _kill(self) -> None:
        self.history.kills.append(time.time())
        self._service.kill()

    async def _load(self, service: RunningService) -> None:
        """Submit and read over several connections until the service is gone."""
        async with aiohttp.ClientSession(service.url) as session:
            await asyncio.gather(
                self._reader(session), *(self._submitter(service, session) for _ in range(CONNECTIONS))
            )

    async def _submitter(self, service: RunningService, session: aiohttp.ClientSession) -> None:
        while True:
            self._sent += 1
            text = f"{self._sent} {self._random.random()}"
            body = {"model": "oracle", "input": {"text": text, "ledger": str(self._ledger), "run_s": RUN_S}}
            try:
                async with session.post("/v1/jobs", json=body) as answer:
                    job = await answer.json()
                    if answer.status == 202:
                        self.history.accept(Submission(job["id"], text, time.time()))
                    else:
                        self.history.refused.append(answer.status)
            except (aiohttp.ClientError, OSError):
                self.history.unknown += 1
                return
            while len(self.history.accepted) - len(self.history.first_final) > WAITING_AT_MOST:
                if service.gone:
                    return
                await asyncio.sleep(0.005)

    async def _reader(self, session: aiohttp.ClientSession) -> None:
        """Read unfinished jobs, oldest first, and finished ones again at random."""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while True:
                waiting = [job_id for job_id in self.history.accepted if job_id not in self.history.first_final][:50]
                finished = list(self.history.first_final)
                for job_id in [*waiting, *self._random.sample(finished, min(10, len(finished)))]:
                    await self._read(session, job_id)
                await asyncio.sleep(0.01)

    async def _read(self, session: aiohttp.ClientSession, job_id: str, wait_s: int = 0) -> None:
        async with session.get(f"/v1/jobs/{job_id}", params={"wait": wait_s}) as answer:
            self.history.see(job_id, answer.status, await answer.json())


def crash_once(folder: Path, point: str, reached: int) -> Verdict:
    """Submit until the service kills itself at a named crash point, then start it again and judge."""
    return Storm(folder, rounds=0, seed=0, synchronous="normal").run_to_crash(f"{point}:{reached}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--synchronous", choices=("normal", "full"), default="normal")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forebay-storm-") as folder:
        storm = Storm(Path(folder), chosen.rounds, chosen.seed, chosen.synchronous)
        began = time.monotonic()
        verdict = storm.run()
    print(f"kill storm  rounds={chosen.rounds}  seed={chosen.seed}  synchronous={chosen.synchronous}", end="  ")
    print(f"seconds={time.monotonic() - began:.0f}\n{verdict}")
    if verdict.broken:
        sys.exit(f"broken promises: {verdict.broken}")
    if verdict.busy_kills < ENOUGH_BUSY * verdict.kills:
        sys.exit(
            f"vacuous: only {verdict.busy_kills} of {verdict.kills} kills fell on {BUSY_AT} unfinished jobs or more"
        )
    print("every accepted job ended with the right answer, none changed, attempts are true")


if __name__ == "__main__":
    main()
