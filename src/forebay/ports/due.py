"""Jobs that time brings further, and what is left of those that it has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from forebay.core.job import Job


class DueJobs(ABC):
    """Times are the log's. All of these raise Unavailable, with the code `rebuilding` while a rebuild is under way."""

    @abstractmethod
    async def due(self, now: float, limit: int) -> list[Job]:
        """Those that time alone brings further by `now`, in the log's time (`Job.over_at`), the longest due first and
        without their outputs."""

    @abstractmethod
    async def unswept(self, limit: int) -> list[Job]:
        """Tombstones of jobs of which something may be left elsewhere: those that were not `swept`."""

    @abstractmethod
    async def swept(self, tombstones: Sequence[Job]) -> None:
        """What belonged to these deleted jobs elsewhere is gone. Harmless when repeated."""

    @abstractmethod
    async def tombstones(self, before: float, limit: int) -> list[Job]:
        """Those of jobs that were deleted before this, in the log's time; the oldest first."""

    @abstractmethod
    async def forget(self, tombstones: Sequence[Job]) -> None:
        """Nothing of these deleted jobs need be known any more, nor of the keys that named them. Harmless when
        repeated."""

    @abstractmethod
    async def forget_unpublished(self, before: float) -> None:
        """Reservations of jobs that were to be accepted before this, and never were."""
