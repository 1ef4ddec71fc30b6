"""One run of a storm: clients on one side, harm on the other, then calm, the last readings and the verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from chaos.checker import judge
from chaos.cluster import ServiceCluster
from chaos.history import Records, Seen
from chaos.load import Load, Plan, read_finals
from chaos.nemesis import Nemesis
from chaos.rules import Rules
from chaos.topics import read_facts
from chaos.verdict import Verdict

ENDS_WITHIN_S = 180.0
"""All jobs, after the last harm: dead members are noticed, backlogs drained."""

Storm = Callable[[Load, Nemesis], Awaitable[None]]


async def judged(
    cluster: ServiceCluster,
    bootstrap: str,
    rng: random.Random,
    plan: Plan,
    storm: Storm,
    rules: Rules = Rules(),  # noqa: B008 - a frozen value
    ends_within_s: float = ENDS_WITHIN_S,
) -> Verdict:
    """Clients work from before `storm` until after it. What `storm` hit must be whole again when it returns."""
    records = Records(cluster.folder / "history")
    nemesis = Nemesis(cluster, records, rng)
    load = Load(records, cluster.urls, cluster.ledger, rng, plan)
    try:
        async with asyncio.TaskGroup() as tasks:
            keeper = tasks.create_task(nemesis.keep())
            running = tasks.create_task(load.run())
            await storm(load, nemesis)
            load.stop()
            await running
            finals = await _read_all(cluster, bootstrap, rng, {*load.accepted, *load.unsure}, ends_within_s)
            keeper.cancel()
        facts = await asyncio.to_thread(read_facts, bootstrap, cluster.prefix)
        return judge(records.history(), cluster.ledger.read_text(), finals, facts, rules)
    finally:
        records.close()


async def _read_all(
    cluster: ServiceCluster, bootstrap: str, rng: random.Random, told: set[str], within_s: float
) -> dict[str, Seen]:
    """Of every job that a client was told of or that stands in the log, where one may still arrive that no client
    knows."""
    finals: dict[str, Seen] = {}
    asked = told
    while asked:
        finals |= await read_finals(cluster.urls, asked, rng, within_s)
        facts = await asyncio.to_thread(read_facts, bootstrap, cluster.prefix)
        asked = facts.requests.keys() - finals.keys()
    return finals
