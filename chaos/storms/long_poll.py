"""Models that take longer than the client may go without a poll, and more workers than partitions, or far fewer."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.cluster import Shape
from chaos.load import Load, Plan, Wish
from chaos.models import Oracle
from chaos.nemesis import Nemesis
from chaos.parts import Frame, on_kafka
from chaos.report import Order, Part
from chaos.rules import Least
from chaos.under_load import Storm

POLL_INTERVAL_S = 7
"""Not below the session timeout, which the client refuses."""


def storm(order: Order) -> Iterator[Part]:
    run_s, slow_jobs, jobs = (16.0, 4, 200) if order.short else (30.0, 12, 2_000)
    slow = Plan(wish=lambda _: Wish({"run_s": run_s}), submitters=1, waiting_at_most=slow_jobs, pace_s=0.5)
    quick = Plan(wish=lambda _: Wish({"run_s": 0.002}))
    parts = (
        # Two workers: what one of them would lose by standing still, the other would run again.
        (f"a model of {run_s:.0f} s, polls at most {POLL_INTERVAL_S} s apart", slow, slow_jobs, 2, 12),
        ("3 workers on 1 partition", quick, jobs, 3, 1),
        ("12 partitions on 1 worker", quick, jobs, 1, 12),
    )
    for title, plan, enough, workers, partitions in parts:
        shape = Shape(
            apis=1,
            workers=workers,
            projectors=1,
            oracle=Oracle(max_batch_size=2 if plan is slow else 8),
            settings={"kafka_max_poll_interval_s": str(POLL_INTERVAL_S), "kafka_partitions": str(partitions)},
        )
        frame = Frame(title=title, shape=shape, plan=plan, least=Least(accepted=enough))
        yield on_kafka(order, frame, _submit(enough))


def _submit(enough: int) -> Storm:
    """No harm at all: whatever runs twice does so of itself."""

    async def submit(load: Load, nemesis: Nemesis) -> None:
        await load.until(enough)

    return submit
