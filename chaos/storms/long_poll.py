"""Models that take longer than the client may go without a poll, and more workers than partitions, or far fewer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from chaos.cluster import Shape
from chaos.groups import Group
from chaos.load import Load, Plan, Wish
from chaos.models import Oracle
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.report import Order, Part
from chaos.rules import Least

POLL_INTERVAL_S = 7
"""Not below the session timeout, which the client refuses."""


def storm(order: Order) -> Iterator[Part]:
    yield _slow(order)
    jobs = 200 if order.short else 1_000
    yield _drain(order, "3 workers on 1 partition", jobs, workers=3, partitions=1)
    yield _drain(order, "12 partitions on 1 worker", jobs, workers=1, partitions=12)


def _slow(order: Order) -> Part:
    """Two workers: what one of them would lose by standing still, the other would run again. Both have their part
    before any job comes, or the second might be given what the first has begun."""
    run_s, jobs = (10.0, 3) if order.short else (30.0, 8)
    bootstrap = order.stage.broker().bootstrap
    plan = Plan(wish=lambda _: Wish({"run_s": run_s}), submitters=1, waiting_at_most=jobs, pace_s=0.5)
    shape = Shape(
        apis=1,
        workers=2,
        projectors=1,
        oracle=Oracle(max_batch_size=2),
        settings={"kafka_max_poll_interval_s": str(POLL_INTERVAL_S), "kafka_drain_s": "1"},
    )

    async def settle(nemesis: Nemesis) -> None:
        await Group(bootstrap, nemesis.worker_group).settled(of=2)

    async def submit(load: Load, nemesis: Nemesis) -> None:
        await load.until(jobs)

    title = f"a model of {run_s:.0f} s, polls at most {POLL_INTERVAL_S} s apart"
    frame = Frame(title=title, shape=shape, plan=plan, least=Least(accepted=jobs))
    return on_kafka(order, frame, submit, before=settle)


def _drain(order: Order, title: str, jobs: int, workers: int, partitions: int) -> Part:
    """A backlog that was there before any worker. No harm at all: whatever runs twice does so of itself."""
    plan = Plan(wish=lambda _: Wish({"run_s": 0.002}), waiting_at_most=2 * jobs)
    shape = Shape(apis=1, workers=0, projectors=1, settings={"kafka_partitions": str(partitions)})

    async def fill_then_drain(load: Load, nemesis: Nemesis) -> None:
        await load.until(jobs)
        await asyncio.gather(*(nemesis.join(nemesis.add("worker")) for _ in range(workers)))

    frame = Frame(title=title, shape=shape, plan=plan, least=Least(accepted=jobs, faults=workers))
    return on_kafka(order, frame, fill_then_drain)
