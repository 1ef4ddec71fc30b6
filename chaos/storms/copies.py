"""Copies of one submission reach several APIs at once, and are sent again and again, while APIs are killed and held:
one key, one job."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator

from chaos.cluster import Shape
from chaos.load import Load, Plan, Wish
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.report import Order, Part
from chaos.rules import Least

PAUSES = 0.3
BETWEEN_S = (0.5, 2.0)
COPIES = 50
AT_ONCE = 2
"""Keys whose copies are under way together."""

LONG, SHORT = 300, 24
PLAN = Plan(wish=lambda _: Wish({"run_s": 0.0}), submitters=1, readers=4, pace_s=0.5)
"""Some jobs without a key, too."""


def storm(order: Order) -> Iterator[Part]:
    keys, faults = (SHORT, 3) if order.short else (LONG, 20)

    async def copy(load: Load, nemesis: Nemesis) -> None:
        harm = _Harm(nemesis, random.Random(order.seed))
        numbers = itertools.count()

        async def submit() -> None:
            while (number := next(numbers)) < keys or harm.struck < faults:
                await load.submit_copies(f"key-{order.seed}-{number}", COPIES)

        async with asyncio.TaskGroup() as tasks:
            harming = tasks.create_task(harm.run())
            await asyncio.gather(*(submit() for _ in range(AT_ONCE)))
            harm.over = True
            await harming

    least = Least(accepted=keys, faults=faults, keys=keys, copies=keys * COPIES)
    shape = Shape(apis=2, workers=2, projectors=2)
    yield on_kafka(order, Frame(title="copies under one key", shape=shape, plan=PLAN, least=least), copy)


class _Harm:
    """To one API or the other, until it is `over` and what was hit is whole again."""

    def __init__(self, nemesis: Nemesis, rng: random.Random) -> None:
        self._nemesis = nemesis
        self._random = rng
        self.struck = 0
        self.over = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while not self.over:
                # The random moment is the experiment: there is no condition to wait for.
                await asyncio.sleep(self._random.uniform(*BETWEEN_S))
                self.struck += self._nemesis.strike(tasks, PAUSES, "api")
