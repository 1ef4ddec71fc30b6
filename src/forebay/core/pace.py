"""How fast work on a model gets on, as its workers measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from msgspec import Struct


class Pace(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Measured over recent batches, and only while there was work, so that an idle hour does not make it slow.

    `jobs_per_s`: jobs ended in a second of work. `batches`: how many were measured. `batch_size`: jobs in the mean
    batch. `service_s`, `service_sd_s`: from the start of an attempt to its outcome, mean and standard deviation.
    `running`: batches that run now. `finished_per_s`: by lane, jobs ended per second of the last minute, idle or not.
    """

    jobs_per_s: float
    batches: int
    batch_size: float
    service_s: float
    service_sd_s: float
    running: int = 0
    finished_per_s: Mapping[str, float] = {}

    @property
    def variation(self) -> float:
        """Of the service time: its standard deviation over its mean."""
        return self.service_sd_s / self.service_s if self.service_s > 0 else 0.0


def together(paces: Sequence[Pace]) -> Pace | None:
    """Of several workers; None for none. Rates add up, what is said of a batch is weighed by how many batches pass."""
    if not paces:
        return None
    weights = [pace.jobs_per_s / pace.batch_size for pace in paces]
    batches_per_s = sum(weights)
    mean = sum(weight * pace.service_s for weight, pace in zip(weights, paces, strict=True)) / batches_per_s
    square = sum(
        weight * (pace.service_sd_s**2 + (pace.service_s - mean) ** 2)
        for weight, pace in zip(weights, paces, strict=True)
    )
    lanes = {lane for pace in paces for lane in pace.finished_per_s}
    jobs_per_s = sum(pace.jobs_per_s for pace in paces)
    return Pace(
        jobs_per_s=jobs_per_s,
        batches=sum(pace.batches for pace in paces),
        batch_size=jobs_per_s / batches_per_s,
        service_s=mean,
        service_sd_s=sqrt(square / batches_per_s),
        running=sum(pace.running for pace in paces),
        finished_per_s={lane: sum(pace.finished_per_s.get(lane, 0.0) for pace in paces) for lane in sorted(lanes)},
    )
