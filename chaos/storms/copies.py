"""Copies of one submission reach several APIs at once, and are sent again and again, while APIs are killed and held:
one key, one job."""

from __future__ import annotations

import asyncio
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
    keys = SHORT if order.short else LONG

    async def copy(load: Load, nemesis: Nemesis) -> None:
        done = asyncio.Event()
        waiting = iter([f"key-{order.seed}-{number}" for number in range(keys)])

        async def submit() -> None:
            for key in waiting:
                await load.submit_copies(key, COPIES)

        async with asyncio.TaskGroup() as tasks:
            harm = tasks.create_task(_harm(nemesis, random.Random(order.seed), done))
            await asyncio.gather(*(submit() for _ in range(AT_ONCE)))
            done.set()
            await harm

    least = Least(accepted=keys, faults=3 if order.short else 20, keys=keys, copies=keys * COPIES)
    shape = Shape(apis=2, workers=2, projectors=2)
    yield on_kafka(order, Frame(title="copies under one key", shape=shape, plan=PLAN, least=least), copy)


async def _harm(nemesis: Nemesis, rng: random.Random, done: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as tasks:
        while not done.is_set():
            # The random moment is the experiment: there is no condition to wait for.
            await asyncio.sleep(rng.uniform(*BETWEEN_S))
            nemesis.strike(tasks, PAUSES, "api")
