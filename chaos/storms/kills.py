"""Any process of the service is killed or held at any moment, while clients submit and read without pause; or any of
one kind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from msgspec.structs import replace

from chaos.cluster import Shape
from chaos.load import Load, Plan, Wish
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.report import Order, Part
from chaos.rules import Least

PAUSES = 0.35
"""Of the faults; the others kill."""

LONG = Least(accepted=20_000, faults=100, busy_share=0.75, unknown=10, reruns=100)
SHORT = Least(accepted=1_500, faults=12, busy_share=0.75, reruns=5)
BETWEEN_S = (0.5, 4.5)
"""Between the beginnings of two faults: a start takes 2 to 4 s on two busy cores, so one or two are down at a time."""

RUN_S = (0.0, 0.01, 0.05, 0.2)
"""A little more than three workers on two cores keep up with, so that some jobs always wait: with 46 ms in the mean 7
of the 16 faults of one run fell on an idle service."""

LOAD = Plan(wish=lambda rng: Wish({"run_s": rng.choice(RUN_S)}), waiting_at_most=2_000, pace_s=0.025)
"""A killed worker's partitions wait for its session to end, and must not hold up the clients meanwhile."""


def storm(order: Order) -> Iterator[Part]:
    least = SHORT if order.short else LONG
    if order.strike not in ("", "api"):
        least = replace(least, unknown=0)  # which comes from an API's death
    if order.strike not in ("", "worker"):
        least = replace(least, reruns=0, busy_share=0.0)  # no backlog grows behind workers that live

    async def kill(load: Load, nemesis: Nemesis) -> None:
        rng = random.Random(order.seed)
        struck = 0
        async with asyncio.TaskGroup() as tasks:
            while struck < least.faults or len(load.accepted) < least.accepted:
                # The random moment is the experiment: there is no condition to wait for.
                await asyncio.sleep(rng.uniform(*BETWEEN_S))
                struck += nemesis.strike(tasks, PAUSES, order.strike)

    shape = Shape(apis=2, workers=3, projectors=2, schedulers=2)
    title = f"kill -9 and pauses of any {order.strike or 'process'}"
    yield on_kafka(order, Frame(title=title, shape=shape, plan=LOAD, least=least), kill)
