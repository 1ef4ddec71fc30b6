"""Jobs that time brings further, and what is left of those that it has ended."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from forebay.core.job import Job

DuePlace = tuple[float, str, str]
"""Where a job stands in the order of these: the time that the order goes by, tenant, id."""

FRONT: DuePlace = (-math.inf, "", "")
"""Before all of them."""


class DueJobs(ABC):
    """Times are the log's. All of these raise Unavailable, with the code `rebuilding` while a rebuild is under way."""

    @abstractmethod
    async def due(self, now: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        """Those that time alone brings further by `now`, in the log's time, behind `after` in the order of
        `Job.over_at`, tenant and id: so the longest due first. Without their outputs."""

    @abstractmethod
    async def unswept(self, limit: int, after: DuePlace = FRONT) -> list[Job]:
        """Tombstones of jobs of which something may be left elsewhere: those that were not `swept`. Behind `after` in
        the order of `deleted_at`, tenant and id."""

    @abstractmethod
    async def swept(self, tombstones: Sequence[Job]) -> None:
        """What belonged to these deleted jobs elsewhere is gone. Harmless when repeated."""

    @abstractmethod
    async def tombstones(self, before: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        """Those of jobs that were deleted before this, in the log's time; in the same order, so the oldest first."""

    @abstractmethod
    async def forget(self, tombstones: Sequence[Job]) -> None:
        """Nothing of these deleted jobs need be known any more, nor of the keys that named them. Harmless when
        repeated."""

    @abstractmethod
    async def forget_unpublished(self, before: float) -> None:
        """Reservations of jobs that were to be accepted before this, and never were."""
