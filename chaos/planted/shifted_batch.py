"""Each job of a batch gets the outcome of its neighbour."""

from __future__ import annotations

from msgspec.structs import replace

from forebay.worker import frames
from forebay.worker.hand import JobInHand
from forebay.worker.outcomes import Outcomes

_settle = Outcomes.settle


async def settle(self: Outcomes, batch: list[JobInHand], done: frames.Done, begun_at: float, size: int) -> None:
    shifted = [*done.outcomes[1:], *done.outcomes[:1]]
    await _settle(self, batch, replace(done, outcomes=shifted), begun_at, size)


def plant() -> None:
    Outcomes.settle = settle  # type: ignore[method-assign]  # that is the bug
