"""Jobs that kill the worker that runs them, among good ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from chaos.cluster import Shape
from chaos.history import DIES
from chaos.load import Load, Plan, Wish
from chaos.models import Oracle
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.report import Order, Part
from chaos.rules import Least, Rules

ATTEMPTS = 3
SOON_S, LATER_S = (0.0, 0.9), (1.0, 3.0)
"""After the model has begun: before and after the completions and marks of a second are on record."""


def storm(order: Order) -> Iterator[Part]:
    poisons, jobs = (3, 240) if order.short else (50, 5_050)
    wish = _one_in(jobs // poisons, poisons)
    plan = Plan(wish=wish, waiting_at_most=jobs, pace_s=0.1)
    shape = Shape(apis=1, workers=3, projectors=1, schedulers=1, oracle=Oracle(max_attempts=ATTEMPTS))

    async def poison(load: Load, nemesis: Nemesis) -> None:
        await load.until(jobs)

    frame = Frame(
        title="jobs that kill their worker",
        shape=shape,
        plan=plan,
        least=Least(accepted=jobs, faults=2 * poisons, reruns=2 * poisons, deadly=poisons),
        rules=Rules(deaths=ATTEMPTS),
        ends_within_s=900,
    )
    yield on_kafka(order, frame, poison)


def _one_in(every: int, at_most: int) -> Callable[[random.Random], Wish]:
    """Every so often a poison, until there were enough."""
    asked = 0

    def wish(rng: random.Random) -> Wish:
        nonlocal asked
        asked += 1
        if asked % every or asked // every > at_most:
            return Wish({"run_s": 0.01})
        after_s = rng.uniform(*rng.choice((SOON_S, LATER_S)))
        return Wish({"run_s": 0.01, "kill_worker_after_s": after_s}, DIES)

    return wish
