"""The usual frame of a storm's part: a service on a broker and a database of the stage, its verdict as a part."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from chaos.cluster import ServiceCluster, Shape
from chaos.history import Records
from chaos.load import Plan
from chaos.nemesis import Nemesis
from chaos.proxy import Proxy
from chaos.report import Order, Part
from chaos.rules import Least, Rules
from chaos.under_load import ENDS_WITHIN_S, Storm, judged

PLANTED_WITHIN_S = 30.0
"""With a planted bug there are jobs that never end."""


Aside = Callable[[Nemesis], Awaitable[None]]


class Ground(Struct, frozen=True, kw_only=True):
    """What the service is told to use; its log is read by the same way in the end. `proxies` are open while it runs."""

    bootstrap: str
    store: str
    proxies: Sequence[Proxy] = ()


class Frame(Struct, frozen=True, kw_only=True):
    """One part: what runs, what its clients do, what must have happened and by what it is judged."""

    title: str
    shape: Shape
    plan: Plan
    least: Least
    rules: Rules = Rules()
    ends_within_s: float = ENDS_WITHIN_S


def on_kafka(
    order: Order,
    frame: Frame,
    storm: Storm,
    *,
    kafka: str = "one",
    ground: Ground | None = None,
    before: Aside | None = None,
    afterwards: Aside | None = None,
) -> Part:
    """Starts the service, does `before`, runs `storm` under load, judges, and does `afterwards` while all is still
    there. Raises ServiceFailed; the ends of all logs are printed."""
    ground = ground or Ground(bootstrap=order.stage.kafka(kafka).bootstrap, store=order.stage.database())
    return asyncio.run(_on_kafka(order, frame, storm, ground, before, afterwards))


async def _on_kafka(
    order: Order, frame: Frame, storm: Storm, ground: Ground, before: Aside | None, afterwards: Aside | None
) -> Part:
    prefix = order.stage.name("storm")
    cluster = ServiceCluster(
        order.folder / prefix,
        queue=f"kafka://{ground.bootstrap}",
        store=ground.store,
        prefix=prefix,
        shape=replace(frame.shape, planted=order.planted),
    )
    rng = random.Random(order.seed)
    async with contextlib.AsyncExitStack() as stack:
        for proxy in ground.proxies:
            await stack.enter_async_context(proxy)
        stack.callback(cluster.kill)
        try:
            await asyncio.to_thread(cluster.start)
            if before is not None:
                await before(Nemesis(cluster, Records(), rng))
            within_s = PLANTED_WITHIN_S if order.planted else frame.ends_within_s
            verdict = await judged(cluster, ground.bootstrap, rng, frame.plan, storm, frame.rules, within_s)
            if afterwards is not None:
                await afterwards(Nemesis(cluster, Records(), rng))
        except BaseException:
            print(cluster.log_tails(), file=sys.stderr)
            raise
    return Part(frame.title, verdict, frame.least)
