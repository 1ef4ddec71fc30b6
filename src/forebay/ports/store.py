"""Visible job state. Derived: a store can be emptied and rebuilt from the event log to the same rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

from forebay.core.job import Job
from forebay.ports.event_log import LogBatch


class Subscription(ABC):
    """A wake-up call for one job."""

    @abstractmethod
    async def changed(self, timeout_s: float) -> bool:
        """Wait until the job may have changed since the last call (or since subscribing); False after `timeout_s`.

        A hint and no promise: read the store after it, and read again at least each second.
        """


class ResultStore(ABC):
    """A final job never changes: neither its row nor its output's bytes."""

    @abstractmethod
    async def project(self, batch: LogBatch) -> list[Job] | None:
        """Apply the batch's facts and advance its source from `start` to `end`, in one transaction.

        Returns the jobs that are different now, visible to every reader. None if the source was not at `start`: another
        projector has been here, nothing was changed, and the caller gives the source up. Wakes subscriptions.
        """

    @abstractmethod
    async def position(self, source: str) -> str:
        """How far `source` has been applied; START for a source never seen."""

    @abstractmethod
    async def get(self, tenant: str, job_id: str) -> Job | None:
        """The job, its output included; None if no request or event about it has been applied, or if it is a stub."""

    @abstractmethod
    async def list_jobs(self, tenant: str, *, model: str | None, status: str | None, limit: int) -> list[Job]:
        """The newest jobs first, without their outputs."""

    @abstractmethod
    def subscribe(self, tenant: str, job_id: str) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe first, then read, then wait: so that no change falls between."""
