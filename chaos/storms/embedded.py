"""`kill -9` of a whole service in one process at random moments while jobs are submitted.

Each round starts the service on the same data folder, submits from several connections without pause, and kills it at a
moment drawn from the seed: while it starts, while it works, at any instruction. Its runners die with it.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from chaos.access import grant
from chaos.checker import judge
from chaos.history import DEATH, Fault, Records
from chaos.load import Load, Plan, Wish
from chaos.log_file import read_log_file
from chaos.planted import entry
from chaos.reading import read_finals
from chaos.report import Order, Part
from chaos.rows import OWNED, differing, filled, missing, sqlite_finals, sqlite_owned, sqlite_rows
from chaos.rules import Least, Rules
from chaos.verdict import Verdict
from dev.kafka.ports import free_port
from forebay.testing.service import RunningService, output_of

MODELS = Path(__file__).resolve().parents[2] / "tests" / "models"
ENOUGH_BUSY = 0.75
RUN_S = 0.04

PACE_S = 0.015
"""Somewhat more than the model keeps up with, so that a kill finds jobs in every hand, the API's too."""

RULES = Rules(busy_at=20, settle_s=0.5)
"""SQLite has completions on record at once."""

READ_WITHIN_S = 120.0
LIFE_AT_MOST_S = 60.0

MAX_LIFE_S = 1.2
"""A kill falls uniformly within this time of the service being ready; being ready takes about half a second."""


def least(rounds: int) -> Least:
    return Least(
        accepted=20 * rounds, faults=rounds, busy_share=ENOUGH_BUSY, unknown=rounds // 10 if rounds >= 100 else 0
    )


class EmbeddedStorm:
    """One run on a folder of its own. Each life lasts until `jobs_a_life` more jobs were accepted, and a random moment
    longer. With `rebuilding` the derived tables are deleted and filled anew after each kill."""

    def __init__(
        self,
        folder: Path,
        rounds: int,
        seed: int,
        synchronous: str,
        planted: str = "",
        *,
        jobs_a_life: int = 0,
        rebuilding: bool = False,
    ) -> None:
        self._rounds = rounds
        self._jobs_a_life = jobs_a_life
        self._differing = self._touched = 0
        self._planted = planted
        self._rebuilding = rebuilding
        self._random = random.Random(seed)
        self._ledger = folder / "ledger"
        self._ledger.touch()
        self._records = Records(folder / "history")
        self._folder = folder
        self._settings = {
            "trusted_models": "oracle",
            "models": "oracle",
            "synchronous": synchronous,
            "log_level": "warning",
            "port": str(free_port()),
        }
        self._service = self._new()
        self._url = f"http://127.0.0.1:{self._settings['port']}"

    def run(self) -> Verdict:
        """Judged after the last reading."""
        return self._judged(self._storm)

    def run_to_crash(self, crash_at: str) -> Verdict:
        """One life, ended by the service itself at the crash point; then the last readings."""

        async def storm(load: Load) -> None:
            armed = self._new(crash_at=crash_at)
            try:
                armed.spawn()
                status = await asyncio.to_thread(armed.wait, LIFE_AT_MOST_S)
            finally:
                armed.kill()
            self._fault("kill" if status == -signal.SIGKILL else DEATH, armed.pid)

        return self._judged(storm)

    def _new(self, **more: str) -> RunningService:
        settings = {**self._settings, **more}
        return RunningService(self._folder / "data", MODELS, settings=settings, entry=entry(self._planted))

    def _judged(self, storm: Callable[[Load], Awaitable[None]]) -> Verdict:
        try:
            return asyncio.run(self._under_load(storm))
        finally:
            self._service.kill()
            self._records.close()

    async def _under_load(self, storm: Callable[[Load], Awaitable[None]]) -> Verdict:
        token = await asyncio.to_thread(grant, self._with_places()) if self._rebuilding else ""
        emits = ["one", "two"] if self._rebuilding else []
        plan = Plan(
            wish=lambda _: Wish({"run_s": RUN_S, "emits": emits}), pace_s=PACE_S, waiting_at_most=400, token=token
        )
        load = Load(self._records, [self._url], self._ledger, self._random, plan)
        running = asyncio.create_task(load.run())
        try:
            await storm(load)
        finally:
            load.stop()
            await running
        file = self._folder / "data" / "forebay.db"
        arrived = read_log_file(file).requests  # those too of which no client was told
        await asyncio.to_thread(self._service.start)
        asked = {*load.accepted, *load.unsure, *arrived}
        finals = await read_finals([self._url], asked, self._random, READ_WITHIN_S, token)
        self._service.kill()
        verdict = judge(self._records.history(), self._ledger.read_text(), finals, read_log_file(file), RULES)
        if not self._rebuilding:
            return verdict
        before = sqlite_rows(file)
        compared = len(filled(before) | filled(sqlite_owned(file)) & OWNED)
        await asyncio.to_thread(self._rebuild)
        differ = self._differing + differing(before, sqlite_rows(file))
        return replace(verdict, differing_rows=differ, touched_owned=self._touched, filled=compared)

    def _with_places(self) -> dict[str, str]:
        """The service's settings, for a command beside it."""
        return {**self._settings, "data_dir": str(self._folder / "data"), "models_dir": str(MODELS)}

    def _rebuild(self) -> None:
        """What was final before must stand there as it did, and what is not derived too."""
        file = self._folder / "data" / "forebay.db"
        finals, owned = sqlite_finals(file), sqlite_owned(file)
        output_of("store", "rebuild", settings=self._with_places(), timeout_s=LIFE_AT_MOST_S)
        self._differing += missing(finals, sqlite_finals(file))
        self._touched += differing(owned, sqlite_owned(file))

    async def _storm(self, load: Load) -> None:
        for number in range(self._rounds):
            await self._round(load, number)
            if self._rebuilding:
                await asyncio.to_thread(self._rebuild)
            if sys.stderr.isatty() or number % 10 == 9:
                counts = f"{len(load.accepted)} accepted, {len(load.final)} seen final"
                print(f"round {number + 1}/{self._rounds}: {counts}", file=sys.stderr, flush=True)

    async def _round(self, load: Load, number: int) -> None:
        """A life of the service: it is killed after a random time of having been ready (or, now and then, before)."""
        self._service.spawn()
        if not self._jobs_a_life and self._random.random() < 0.1:
            await asyncio.sleep(self._random.uniform(0.0, 1.0))
        else:
            await asyncio.to_thread(self._service.wait_ready)
            await load.until(len(load.accepted) + self._jobs_a_life)
            if self._rebuilding:
                await load.submit_others(f"key-{number}")
            # The random moment is the experiment: there is no condition to wait for.
            await asyncio.sleep(self._random.uniform(0.05, MAX_LIFE_S))
        self._kill()

    def _kill(self) -> None:
        """Unless it is dead already, of itself."""
        self._fault(DEATH if self._service.gone else "kill", self._service.pid)
        self._service.kill()

    def _fault(self, kind: str, pid: int) -> None:
        self._records.faults.append(Fault(kind, "up", pid, time.time()))


def crash_once(folder: Path, point: str, reached: int) -> Verdict:
    """Submit until the service kills itself at a named crash point, then start it again and judge."""
    return EmbeddedStorm(folder, rounds=0, seed=0, synchronous="normal").run_to_crash(f"{point}:{reached}")


def storm(order: Order) -> Iterator[Part]:
    """200 rounds, ended by `kill -9` (short: 6)."""
    rounds = 6 if order.short else 200
    verdict = EmbeddedStorm(order.folder, rounds, order.seed, "normal", order.planted).run()
    yield Part("kill -9 of `forebay up`", verdict, least(rounds))
