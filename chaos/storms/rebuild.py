"""Derived tables are deleted under load and filled anew from the log; projectors are held behind each other's backs."""

from __future__ import annotations

import random
from collections.abc import Iterator

import asyncpg
from msgspec.structs import replace

from chaos.cluster import Shape
from chaos.load import Load, Plan, Wish
from chaos.nemesis import Nemesis
from chaos.parts import Frame, Ground, on_kafka
from chaos.report import Order, Part
from chaos.rows import differing, postgres_rows, sqlite_rows
from chaos.rules import Least
from chaos.storms.embedded import EmbeddedStorm

REBUILDS = 5
HELD_S = 2.5
"""Longer than the `hasty` broker waits for a silent member: what the held projector follows is another's meanwhile."""

LOAD = Plan(wish=lambda rng: Wish({"run_s": rng.choice((0.0, 0.05))}), waiting_at_most=1_000, pace_s=0.05)


def storm(order: Order) -> Iterator[Part]:
    jobs = 500 if order.short else 5_000
    yield _postgres(order, jobs)
    yield _embedded(order)
    yield _held_projectors(order, 5 if order.short else 100)


def _postgres(order: Order, jobs: int) -> Part:
    """In the end the tables are deleted once more, and must come to the same rows; so must a store of another kind that
    is made of the same log."""
    dsn = order.stage.database()
    ground = Ground(bootstrap=order.stage.broker().bootstrap, store=dsn)
    differ = 0

    async def rebuild(load: Load, nemesis: Nemesis) -> None:
        for number in range(REBUILDS):
            await load.until((number + 0.5) * jobs / REBUILDS)
            await nemesis.rebuild()
        await load.until(max(jobs, len(load.accepted) + 1))

    async def compare(nemesis: Nemesis) -> None:
        nonlocal differ
        await _own_something(dsn)
        before = await postgres_rows(dsn)
        await nemesis.rebuild()
        differ = differing(before, await postgres_rows(dsn)) + await _not_owned_any_more(dsn)
        elsewhere = nemesis.folder / "elsewhere"
        await nemesis.rebuild(store="sqlite://", data_dir=str(elsewhere))
        differ += differing(before, sqlite_rows(elsewhere / "forebay.db"))

    least = Least(accepted=jobs, faults=REBUILDS)
    frame = Frame(title="derived tables deleted, PostgreSQL", shape=Shape(workers=2), plan=LOAD, least=least)
    part = on_kafka(order, frame, rebuild, ground=ground, afterwards=compare)
    return replace(part, verdict=replace(part.verdict, differing_rows=differ))


async def _own_something(dsn: str) -> None:
    """A table that is not derived stands for those that an operator owns."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE forebay.owned AS SELECT 'a key' AS name")
    await connection.close()


async def _not_owned_any_more(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    left = await connection.fetchval("SELECT count(*) FROM forebay.owned WHERE name = 'a key'")
    await connection.close()
    return int(left != 1)


def _embedded(order: Order) -> Part:
    """`forebay up` is killed each time, and its derived tables are deleted before it starts again."""
    run = EmbeddedStorm(order.folder, REBUILDS, order.seed, "normal", order.planted, rebuilding=True)
    verdict = run.run()
    return Part("derived tables deleted, SQLite", verdict, Least(accepted=20 * REBUILDS, faults=REBUILDS))


def _held_projectors(order: Order, rounds: int) -> Part:
    ground = Ground(bootstrap=order.stage.broker("hasty").bootstrap, store=order.stage.database())
    settings = {"kafka_session_timeout_s": "1.5"}
    shape = Shape(apis=1, workers=1, projectors=2, settings=settings)

    async def hold(load: Load, nemesis: Nemesis) -> None:
        rng = random.Random(order.seed)
        projectors = nemesis.of("projector")
        for _ in range(rounds):
            await nemesis.pause(rng.choice(projectors), HELD_S, with_children=False)
            await load.until(len(load.accepted) + 10)

    title = "a projector held behind another's back"
    frame = Frame(title=title, shape=shape, plan=LOAD, least=Least(accepted=10 * rounds, faults=rounds))
    return on_kafka(order, frame, hold, ground=ground)
