"""What a job's three clocks may be set to, and what they are where nobody sets them."""

from __future__ import annotations

from msgspec import Struct

from forebay.core.errors import InvalidRequest
from forebay.core.job import MAX_LIFE_S, RETAIN_S
from forebay.core.model import ModelLimits

MIN_RETAIN_S = 60.0
MIN_RUN_TIMEOUT_S = 1.0
"""Least that whoever sends a job may ask for. An attempt that overruns costs the model's runner, and all who wait for
it the loading of another: with no time at all each job would do that, whatever its input."""


class ClockLimits(Struct, frozen=True, kw_only=True):
    """Of the service. `max_life_s`: within it every job has ended, one way or another. `retain_s` is for jobs of which
    neither the caller nor the model says how long they are kept."""

    max_life_s: float = MAX_LIFE_S
    max_start_within_s: float = MAX_LIFE_S
    max_run_timeout_s: float = MAX_LIFE_S
    retain_s: float = RETAIN_S
    min_retain_s: float = MIN_RETAIN_S
    max_retain_s: float = 6 * 86_400.0

    def check(
        self, start_within_s: float | None, run_timeout_s: float | None, retain_s: float | None, model: ModelLimits
    ) -> None:
        """What a caller asks for. Raises InvalidRequest, naming the limit."""
        _at_most("start_within_s", start_within_s, min(self.max_start_within_s, self.max_life_s))
        _at_most("run_timeout_s", run_timeout_s, self.max_run_timeout_s)
        _at_least("run_timeout_s", run_timeout_s, MIN_RUN_TIMEOUT_S)
        if run_timeout_s is not None and run_timeout_s > model.run_timeout_s:
            raise InvalidRequest(
                f"run_timeout_s may shorten the model's own limit of {model.run_timeout_s:g} s, not lengthen it",
                pointer="/run_timeout_s",
            )
        _at_most("retain_s", retain_s, self.max_retain_s)
        _at_least("retain_s", retain_s, self.min_retain_s)

    def retain_of(self, asked: float | None, model: ModelLimits) -> float:
        if asked is not None:
            return asked
        return self.retain_s if model.retain_s is None else model.retain_s


def _at_most(name: str, seconds: float | None, limit_s: float) -> None:
    if seconds is not None and seconds > limit_s:
        raise InvalidRequest(f"{name} may be {limit_s:g} s at most", pointer=f"/{name}")


def _at_least(name: str, seconds: float | None, limit_s: float) -> None:
    if seconds is not None and seconds < limit_s:
        raise InvalidRequest(f"{name} may be {limit_s:g} s at least", pointer=f"/{name}")
