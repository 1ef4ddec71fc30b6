"""Workers join and leave every two seconds under load: in order, so that nothing runs twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from chaos.cluster import Role, Shape
from chaos.load import Load, Plan, Wish
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.report import Order, Part
from chaos.rules import Least
from chaos.under_load import Storm
from forebay.testing.service import ServiceFailed

EVERY_S = 2.0
AT_MOST = 4
CASES = (("one", "consumer"), ("one", "classic"), ("old", "classic"))
"""Which Kafka, and by which group protocol; 3.9 knows only the classic one."""

LONG_ONLY = frozenset({("one", "classic")})
"""Both halves of it are in the other two."""


def load(*, waiting: int) -> Plan:
    return Plan(wish=lambda rng: Wish({"run_s": rng.choice((0.0, 0.05, 0.3))}), waiting_at_most=waiting, pace_s=0.06)


def storm(order: Order) -> Iterator[Part]:
    moves, jobs, plan = (5, 300, load(waiting=200)) if order.short else (30, 2_000, load(waiting=1_000))
    for kafka, protocol in CASES:
        if order.short and (kafka, protocol) in LONG_ONLY:
            continue
        shape = Shape(apis=1, workers=AT_MOST, projectors=1, schedulers=1, settings={"kafka_group_protocol": protocol})
        least = Least(accepted=jobs, faults=moves, busy_share=0.5)
        version = "3.9" if kafka == "old" else "4.x"
        frame = Frame(title=f"rebalances, Kafka {version}, {protocol}", shape=shape, plan=plan, least=least)
        yield on_kafka(order, frame, _come_and_go(order, moves, jobs), kafka=kafka)


def _come_and_go(order: Order, moves: int, jobs: int) -> Storm:
    async def come_and_go(load: Load, nemesis: Nemesis) -> None:
        rng = random.Random(order.seed)
        workers = nemesis.of("worker")
        away: list[Role] = []
        moved = 0
        async with asyncio.TaskGroup() as tasks:
            while moved < moves or len(load.accepted) < jobs:
                await asyncio.sleep(EVERY_S)
                here = [role for role in workers if not role.taken]
                if len(here) > 1 and (not away or rng.random() < 0.5):
                    role = rng.choice(here)
                    tasks.create_task(_leave(nemesis, role, away))
                elif away:
                    tasks.create_task(nemesis.join(away.pop(rng.randrange(len(away)))))
                else:
                    continue  # all are on their way
                moved += 1

    return come_and_go


async def _leave(nemesis: Nemesis, role: Role, away: list[Role]) -> None:
    status = await nemesis.leave(role)
    if status != 0:
        raise ServiceFailed(f"{role.name} left with status {status}:\n{role.service.log_tail()}")
    away.append(role)
