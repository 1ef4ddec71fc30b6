"""Lanes and how a worker shares itself among them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum


class Lane(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


WEIGHTS: Mapping[Lane, int] = {Lane.HIGH: 8, Lane.NORMAL: 3, Lane.LOW: 1}
"""Of 12 turns with work in every lane, high gets 8, normal 3, low 1: low is slow but never starved."""

AGE_S = 60.0
"""Each minute that a lane's jobs have waited adds its weight once more, up to that of `high`: what waits for long gets
as many turns as the most urgent and never more, so that a large backlog takes no more than half from that."""


def weight(lane: Lane, age_s: float) -> float:
    """Of a lane whose oldest job has waited for `age_s`."""
    return min(float(WEIGHTS[Lane.HIGH]), WEIGHTS[lane] * (1.0 + max(0.0, age_s) / AGE_S))


class LaneWheel:
    """Smooth weighted round robin: says whose turn it is among the lanes that may have work."""

    def __init__(self) -> None:
        self._credit = dict.fromkeys(Lane, 0.0)

    def turn(self, candidates: Collection[Lane], ages_s: Mapping[Lane, float] = {}) -> Lane:
        """The next lane among `candidates` (at least one). Lanes left out neither gain nor lose credit. `ages_s`: for
        how long the oldest job of a lane has waited, as far as that is known."""
        weights = {lane: weight(lane, ages_s.get(lane, 0.0)) for lane in candidates}
        for lane in candidates:
            self._credit[lane] += weights[lane]
        chosen = max(candidates, key=lambda lane: self._credit[lane])
        self._credit[chosen] -= sum(weights.values())
        return chosen
