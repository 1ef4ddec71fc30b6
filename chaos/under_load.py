"""One run of a storm: clients on one side, harm on the other, then calm, the last readings and the verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from chaos.checker import judge
from chaos.cluster import ServiceCluster
from chaos.facts import Facts
from chaos.history import Records, Seen
from chaos.load import Load, Plan
from chaos.nemesis import Nemesis
from chaos.reading import read_finals
from chaos.rules import Rules
from chaos.topics import read_facts
from chaos.verdict import Verdict

ENDS_WITHIN_S = 180.0
"""All jobs, after the last harm: dead members are noticed, backlogs drained."""

LETTERS_WITHIN_S = 30.0
"""A dead letter is written after the final event that clients see; if its worker dies in between, by the next one."""

LETTERS_POLL_S = 0.2

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
            finals = await _read_all(cluster, bootstrap, rng, load, ends_within_s)
            facts = await _read_log(cluster, bootstrap, finals)
            keeper.cancel()
        return judge(records.history(), cluster.ledger.read_text(), finals, facts, rules)
    finally:
        records.close()


async def _read_all(
    cluster: ServiceCluster, bootstrap: str, rng: random.Random, load: Load, within_s: float
) -> dict[str, Seen]:
    """Of every job that a client was told of or that stands in the log, where one may still arrive that no client
    knows."""
    finals: dict[str, Seen] = {}
    asked = {*load.accepted, *load.unsure}
    while asked:
        finals |= await read_finals(cluster.urls, asked, rng, within_s, load.token)
        facts = await asyncio.to_thread(read_facts, bootstrap, cluster.prefix)
        asked = facts.requests.keys() - finals.keys()
    return finals


async def _read_log(cluster: ServiceCluster, bootstrap: str, finals: Mapping[str, Seen]) -> Facts:
    """When whatever failed is among the dead letters, or has had the time to be."""
    failed = {job_id for job_id, seen in finals.items() if seen.state == "failed"}
    until = time.monotonic() + LETTERS_WITHIN_S
    while True:
        facts = await asyncio.to_thread(read_facts, bootstrap, cluster.prefix)
        if failed <= set(facts.dead_letters) or time.monotonic() > until:
            return facts
        await asyncio.sleep(LETTERS_POLL_S)
