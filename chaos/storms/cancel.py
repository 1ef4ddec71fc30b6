"""Most jobs are canceled at a random moment of their life, while workers are killed and held."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from chaos.cluster import Shape
from chaos.load import Load, Plan, Wish
from chaos.models import Oracle
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.report import Order, Part
from chaos.rules import Least

PAUSES = 0.25
BETWEEN_S = (1.0, 5.0)
RUN_S = (0.0, 0.0, 0.01, 0.02, 0.4)
CANCEL_AFTER_S = (0.0, 3.0)
"""Some are canceled before they begin, some while they run, and some after they have ended."""

WANTED = 0.3
"""Of the jobs, which nobody cancels: the neighbours that must not suffer."""

GRACE_S = 0.2
"""Of a batch that nobody wants: less than the longest runs, so that runners are killed for it, too."""

LONG = Least(accepted=7_200, faults=40, busy_share=0.5, reruns=20, cancels=5_000, acknowledged=1_000)
SHORT = Least(accepted=400, faults=4, cancels=280, acknowledged=80)


def storm(order: Order) -> Iterator[Part]:
    least = SHORT if order.short else LONG

    async def kill(load: Load, nemesis: Nemesis) -> None:
        rng = random.Random(order.seed)
        struck = 0
        async with asyncio.TaskGroup() as tasks:
            while struck < least.faults or len(load.accepted) < least.accepted or load.cancels < least.cancels:
                # The random moment is the experiment: there is no condition to wait for.
                await asyncio.sleep(rng.uniform(*BETWEEN_S))
                struck += nemesis.strike(tasks, PAUSES, "worker")

    plan = Plan(wish=_wish, waiting_at_most=1_000, pace_s=0.3)
    shape = Shape(apis=2, workers=3, projectors=2, oracle=Oracle(cancel_grace_s=GRACE_S))
    yield on_kafka(order, Frame(title="canceled at any moment", shape=shape, plan=plan, least=least), kill)


def _wish(rng: random.Random) -> Wish:
    wanted = rng.random() < WANTED
    after_s = None if wanted else rng.uniform(*CANCEL_AFTER_S)
    return Wish({"run_s": rng.choice(RUN_S)}, cancel_after_s=after_s)
