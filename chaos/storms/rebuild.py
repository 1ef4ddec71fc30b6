"""Derived tables are deleted under load and filled anew from the log; projectors are held behind each other's backs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from msgspec.structs import replace

from chaos.access import grant
from chaos.cluster import Shape
from chaos.groups import Group, Overtaking
from chaos.load import COPIES, Load, Plan, Wish
from chaos.nemesis import Nemesis
from chaos.parts import Frame, Ground, on_kafka
from chaos.reading import session
from chaos.report import Order, Part
from chaos.rows import (
    OWNED,
    TABLES,
    differing,
    filled,
    missing,
    postgres_finals,
    postgres_owned,
    postgres_rows,
    sqlite_rows,
)
from chaos.rules import Least
from chaos.storms.embedded import EmbeddedStorm

HELD_S = 2.5
"""Longer than the `hasty` broker waits for a silent member: what the held projector follows is another's meanwhile."""

LEFT = 10
"""Jobs that wait when the tables are compared."""

OF_WEBHOOKS = {"deliveries", "held_outputs"}
"""Compared, and empty: no job of this storm tells anybody. That deliveries are rebuilt is shown by the stores'
contract."""

VISIBLE_WITHIN_S = 60.0
POLL_S = 0.05

LOAD = Plan(
    wish=lambda rng: Wish({"run_s": rng.choice((0.0, 0.05)), "emits": rng.choice(([], ["one", "two"]))}),
    waiting_at_most=1_000,
    pace_s=0.05,
)


def storm(order: Order) -> Iterator[Part]:
    rebuilds, jobs = (2, 300) if order.short else (5, 5_000)
    yield _postgres(order, rebuilds, jobs)
    yield _embedded(order, rebuilds, jobs)
    yield _held_projectors(order, 3 if order.short else 100)


def _postgres(order: Order, rebuilds: int, jobs: int) -> Part:
    """Whatever is final keeps its rows through each rebuild under load. In the end some jobs wait, the tables are
    deleted once more, and must come to the same rows; so must a store of another kind that is made of the same log."""
    dsn = order.stage.database()
    ground = Ground(bootstrap=order.stage.broker().bootstrap, store=dsn)
    token = grant({"queue": f"kafka://{ground.bootstrap}", "store": dsn, "blobs_shared": "true"})
    differ = touched = compared = 0

    async def rebuilt(nemesis: Nemesis) -> None:
        nonlocal differ, touched
        finals, owned = await postgres_finals(dsn), await postgres_owned(dsn)
        await nemesis.rebuild()
        differ += missing(finals, await postgres_finals(dsn))
        touched += differing(owned, await postgres_owned(dsn))

    async def rebuild(load: Load, nemesis: Nemesis) -> None:
        for number in range(rebuilds):
            await load.until((number + 0.5) * jobs / rebuilds)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(load.submit_others(f"key-{order.seed}-{number}"))
                await rebuilt(nemesis)
        await load.until(max(jobs, len(load.accepted) + 1))

    async def compare(nemesis: Nemesis) -> None:
        nonlocal differ, compared
        await _leave_waiting(nemesis, dsn, token)
        before = await postgres_rows(dsn)
        compared = len(filled(before) | filled(await postgres_owned(dsn)) & OWNED)
        await rebuilt(nemesis)
        differ += differing(before, await postgres_rows(dsn))
        elsewhere = nemesis.folder / "elsewhere"
        await nemesis.rebuild(store="sqlite://", data_dir=str(elsewhere))
        differ += differing(before, sqlite_rows(elsewhere / "forebay.db"))

    least = Least(
        accepted=jobs,
        faults=rebuilds,
        keys=rebuilds,
        copies=rebuilds * COPIES,
        filled=len(TABLES.keys() - OF_WEBHOOKS) + len(OWNED),
    )
    plan = replace(LOAD, token=token)
    frame = Frame(title="derived tables deleted, PostgreSQL", shape=Shape(workers=2), plan=plan, least=least)
    part = on_kafka(order, frame, rebuild, ground=ground, afterwards=compare)
    return replace(part, verdict=replace(part.verdict, differing_rows=differ, touched_owned=touched, filled=compared))


async def _leave_waiting(nemesis: Nemesis, dsn: str, token: str) -> None:
    """Workers leave, and then jobs come, so that something waits in each queue's counts."""
    await asyncio.gather(*(nemesis.leave(role) for role in nemesis.of("worker")))
    async with session(token) as http:
        for number in range(LEFT):
            body = {"model": LOAD.model, "input": {"text": str(number)}}
            async with http.post(f"{nemesis.of('api')[0].url}/v1/jobs", json=body) as answer:
                answer.raise_for_status()
    async with asyncio.timeout(VISIBLE_WITHIN_S):
        while True:
            if sum(key[0] == "waiting" for key in await postgres_rows(dsn)) == LEFT:
                return
            await asyncio.sleep(POLL_S)


def _embedded(order: Order, rebuilds: int, jobs: int) -> Part:
    """`forebay up` is killed each time, and its derived tables are deleted before it starts again."""
    run = EmbeddedStorm(
        order.folder,
        rebuilds,
        order.seed,
        "normal",
        order.planted,
        jobs_a_life=jobs // rebuilds,
        rebuilding=True,
    )
    # Nothing waits when they are compared: the service itself has just done all.
    of_queues = {"waiting", "queue_counts", "outstanding"}
    compared = len(TABLES.keys() - of_queues - OF_WEBHOOKS) + len(OWNED)
    least = Least(accepted=jobs, faults=rebuilds, keys=rebuilds, copies=rebuilds * COPIES, filled=compared)
    return Part("derived tables deleted, SQLite", run.run(), least)


def _held_projectors(order: Order, rounds: int) -> Part:
    """A round counts in which another projector went on with what the held one had, while it was held."""
    dsn = order.stage.database()
    ground = Ground(bootstrap=order.stage.broker("hasty").bootstrap, store=dsn)
    settings = {"kafka_session_timeout_s": "1.5"}
    shape = Shape(apis=1, workers=1, projectors=2, settings=settings)
    overtaken = 0

    async def hold(load: Load, nemesis: Nemesis) -> None:
        nonlocal overtaken
        rng = random.Random(order.seed)
        group = Group(ground.bootstrap, nemesis.projector_group)
        held = 0
        while overtaken < rounds and held < 2 * rounds:
            members = await group.settled(of=2)
            watch = Overtaking(dsn, group, members)
            await nemesis.pause(rng.choice(nemesis.of("projector")), HELD_S, with_children=False, meanwhile=watch)
            held += 1
            overtaken += watch.seen
            await load.until(len(load.accepted) + 10)

    frame = Frame(
        title="a projector held behind another's back",
        shape=shape,
        plan=LOAD,
        least=Least(accepted=10 * rounds, faults=rounds, overtaken=rounds),
    )
    part = on_kafka(order, frame, hold, ground=ground)
    return replace(part, verdict=replace(part.verdict, overtaken=overtaken))
