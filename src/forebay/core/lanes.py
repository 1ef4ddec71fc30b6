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


class LaneWheel:
    """Smooth weighted round robin: says whose turn it is among the lanes that may have work."""

    def __init__(self, weights: Mapping[Lane, int] = WEIGHTS) -> None:
        self._weights = weights
        self._credit = dict.fromkeys(weights, 0)

    def turn(self, candidates: Collection[Lane]) -> Lane:
        """The next lane among `candidates` (at least one). Lanes left out neither gain nor lose credit."""
        for lane in candidates:
            self._credit[lane] += self._weights[lane]
        chosen = max(candidates, key=lambda lane: self._credit[lane])
        self._credit[chosen] -= sum(self._weights[lane] for lane in candidates)
        return chosen
