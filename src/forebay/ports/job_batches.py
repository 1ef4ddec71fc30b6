"""What is visible of batches."""

from __future__ import annotations

from abc import ABC, abstractmethod

from msgspec import Struct

from forebay.core.job import Job
from forebay.core.job_batch import JobBatch, RejectedLine

BatchPlace = tuple[float, str]
"""Where a batch stands among those of its tenant: when it was opened, and its id."""


class BatchPage(Struct, frozen=True):
    """`next`: behind which place there are more; None at the end."""

    batches: list[JobBatch]
    next: BatchPlace | None = None


class JobBatches(ABC):
    """Derived like jobs: while a rebuild is under way all of these raise Unavailable with the code `rebuilding`.
    A batch is counted in the transaction that changes its jobs, so it is finished no sooner than they are seen to be.
    """

    @abstractmethod
    async def batch(self, tenant: str, batch_id: str) -> JobBatch | None:
        """None if nothing that opened it has been applied."""

    @abstractmethod
    async def list_batches(self, tenant: str, *, after: BatchPlace | None, limit: int) -> BatchPage:
        """The newest first; `after`: those that stand behind that place."""

    @abstractmethod
    async def lines(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job | RejectedLine]:
        """What is visible of the lines behind the line `after`, in their order, jobs with their outputs. Fewer than
        `limit` only at the end."""

    @abstractmethod
    async def unfinished(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job]:
        """The jobs that are not final, in the order of their lines, without outputs. Fewer than `limit` only at the
        end."""
