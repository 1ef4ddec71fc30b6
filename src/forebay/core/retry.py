"""When a failed attempt is tried again. Pure: the random number is an argument."""

from __future__ import annotations

from msgspec import Struct


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Exponential backoff with full jitter in the upper half, so that a delay is never nearly zero.

    `max_attempts` counts every attempt, the first included, deaths of runner and worker too. 3: one to meet a passing
    fault, one for bad luck; a third death is the input's.
    """

    max_attempts: int = 3
    first_delay_s: float = 1.0
    factor: float = 4.0
    max_delay_s: float = 300.0

    def delay_s(self, attempt: int, random: float) -> float | None:
        """Seconds to wait after failed attempt `attempt` (from 1), or None to give up. `random` is in [0, 1)."""
        if attempt >= self.max_attempts:
            return None
        full = min(self.max_delay_s, self.first_delay_s * self.factor ** (attempt - 1))
        return full * (0.5 + random / 2)
