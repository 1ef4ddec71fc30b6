"""By what a run is judged, and how much must have happened for a verdict to mean anything."""

from __future__ import annotations

from msgspec import Struct


class Rules(Struct, frozen=True, kw_only=True):
    """`busy_at`: so many unfinished jobs make a fault a busy one. `settle_s`: what a worker did this long before a
    fault hit it may not have been on record yet (an outcome on its way, completions that are committed each second).
    `answer_within_s`: of a 503, and of any answer to what was asked while a broker was away. `recovery_within_s`: the
    first 202 after each outage. `deaths`: so many attempts a job gets that kills its worker, 0 where there is none.
    """

    busy_at: int = 20
    settle_s: float = 3.0
    answer_within_s: float = float("inf")
    recovery_within_s: float = float("inf")
    deaths: int = 0


class Least(Struct, frozen=True, kw_only=True):
    """A run that did less proves nothing."""

    accepted: int = 1
    faults: int = 0
    busy_share: float = 0.0
    unknown: int = 0
    reruns: int = 0
    refused_outages: int = 0
    asked_while_away: int = 0
    deadly: int = 0
    overtaken: int = 0
    cancels: int = 0
    acknowledged: int = 0
    keys: int = 0
    copies: int = 0
    filled: int = 0
    told: int = 0
    parked: int = 0
