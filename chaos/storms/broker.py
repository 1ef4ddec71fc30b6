"""The broker goes away and comes back, or only the way to it, while clients submit without pause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from chaos.cluster import Shape
from chaos.load import Load, Plan, Wish
from chaos.models import Oracle
from chaos.nemesis import Nemesis
from chaos.parts import Frame, Ground, on_kafka
from chaos.proxy import Proxy
from chaos.report import Order, Part
from chaos.rules import Least, Rules
from dev.kafka.broker import Broker
from dev.kafka.ports import HOST, free_port

AWAY_S = (2.0, 6.0)
BETWEEN = 50
"""So many jobs more are accepted between two cuts."""

AFTERWARDS = 50
"""So many jobs more are accepted after the last fault."""

ASKED = 10
"""So many submissions, on average, fall into each time that a broker is away."""

RULES = Rules(busy_at=5, answer_within_s=3.0, recovery_within_s=5.0)
SHAPE = Shape(apis=2, workers=2, projectors=2, schedulers=1, oracle=Oracle(max_batch_size=32))
LOAD = Plan(wish=lambda _: Wish({"run_s": 0.3}), waiting_at_most=5_000, pace_s=0.08)
"""Slow jobs in large batches: some are always in hand when a fault comes, and no backlog grows."""


def storm(order: Order) -> Iterator[Part]:
    bounces, jobs = (2, 400) if order.short else (10, 10_000)
    yield _one_broker(order, bounces, jobs)
    yield _three_brokers(order, bounces, jobs)
    yield _connections(order, *((3, jobs) if order.short else (20, 4_000)))


def _one_broker(order: Order, bounces: int, jobs: int) -> Part:
    broker = order.stage.broker()
    rng = random.Random(order.seed)

    async def bounce(load: Load, nemesis: Nemesis) -> None:
        for number in range(bounces):
            await load.until((number + 0.5) * jobs / bounces)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(nemesis.bounce(broker, hard=number % 2 == 1, away_s=rng.uniform(*AWAY_S)))
                if number % 3 == 1:
                    tasks.create_task(_kill_an_api(nemesis))
        await load.until(max(jobs, len(load.accepted) + AFTERWARDS))

    least = Least(
        accepted=jobs, faults=bounces, busy_share=0.5, refused_outages=bounces, asked_while_away=ASKED * bounces
    )
    frame = Frame(title="one broker, clean and hard bounces", shape=SHAPE, plan=LOAD, least=least, rules=RULES)
    return on_kafka(order, frame, bounce)


async def _kill_an_api(nemesis: Nemesis) -> None:
    """While the broker is away: whatever was accepted on the strength of its memory is gone then."""
    await asyncio.sleep(AWAY_S[0])
    await nemesis.kill(nemesis.of("api")[0])


def _three_brokers(order: Order, bounces: int, jobs: int) -> Part:
    """The broker that leads most of the requests goes each time: with one of three away all goes on."""
    brokers = order.stage.cluster()
    rng = random.Random(order.seed)

    async def chase(load: Load, nemesis: Nemesis) -> None:
        for number in range(bounces):
            await load.until((number + 0.5) * jobs / bounces)
            leader = await nemesis.leader(brokers, nemesis.requests_topic)
            await nemesis.bounce(leader, hard=number % 2 == 0, away_s=rng.uniform(*AWAY_S))
        await load.until(max(jobs, len(load.accepted) + AFTERWARDS))

    least = Least(accepted=jobs, faults=bounces, busy_share=0.5, asked_while_away=ASKED * bounces)
    frame = Frame(title="three brokers, the leader chased", shape=SHAPE, plan=LOAD, least=least, rules=RULES)
    return on_kafka(order, frame, chase, kafka="three")


def _connections(order: Order, cuts: int, jobs: int) -> Part:
    """Broker and database stay whole; the connections to them are refused, fall silent, or are reset."""
    port = free_port()
    advertised = {"advertised.listeners": f"PLAINTEXT://{HOST}:{port}"}
    with Broker(order.folder / "kafka-behind-proxy", settings=advertised) as broker:
        kafka = Proxy(int(broker.bootstrap.rpartition(":")[2]), port)
        postgres = Proxy(order.stage.postgres().port)
        ground = Ground(
            bootstrap=f"{HOST}:{kafka.port}",
            store=order.stage.database(port=postgres.port),
            proxies=(kafka, postgres),
        )
        rng = random.Random(order.seed)

        async def cut(load: Load, nemesis: Nemesis) -> None:
            for number in range(cuts):
                # Submissions go on during a cut from the database, so that another cut is due as soon as it ends. After
                # a cut from the broker nothing is under way yet: so jobs come between any two cuts.
                await load.until(max((number + 0.5) * jobs / cuts, len(load.accepted) + BETWEEN))
                target, proxy = rng.choice((("broker", kafka), ("postgres", postgres)))
                await nemesis.cut(proxy, target, rng.choice(("cut", "stall", "reset")), rng.uniform(*AWAY_S))
            await load.until(max(jobs, len(load.accepted) + AFTERWARDS))

        least = Least(accepted=jobs, faults=cuts, busy_share=0.5)
        frame = Frame(title="connections cut, stalled, reset", shape=SHAPE, plan=LOAD, least=least, rules=RULES)
        return on_kafka(order, frame, cut, ground=ground)
