"""When a delivery that failed is tried again. Pure."""

from __future__ import annotations

DELAYS_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Between ten tries, the first of which is at once: three days and four hours in all (Standard Webhooks 1.0.0,
"Deliverability and reliability")."""

TRIES = len(DELAYS_S) + 1

JITTER = 0.2
"""So far the delays go apart, half of it either way: what failed together does not come together again."""

RETRY_AFTER_MOST_S = 86_400.0
"""No receiver puts a delivery off for longer than the schedule ever does."""


def next_try_s(tries: int, random: float, retry_after_s: float | None = None) -> float | None:
    """Seconds from a failed try to the next, after so many `tries`; None if that was the last. `random` is in [0, 1).
    A receiver that asks for more time gets it, within RETRY_AFTER_MOST_S, and costs the delivery no try more."""
    if tries >= TRIES:
        return None
    delay_s = DELAYS_S[tries - 1] * (1.0 + JITTER * (random - 0.5))
    return max(delay_s, min(retry_after_s or 0.0, RETRY_AFTER_MOST_S))
