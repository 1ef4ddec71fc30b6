"""Visible job state. Derived: a store can be emptied and rebuilt from the event log to the same rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from forebay.core.job import Job
from forebay.core.partials import Partial
from forebay.core.queues import LaneCount
from forebay.core.quota import Use
from forebay.ports.due import DueJobs
from forebay.ports.event_log import LogBatch
from forebay.ports.job_batches import JobBatches
from forebay.ports.outbox import Outbox
from forebay.ports.reservations import Reservations

Place = tuple[float, str]
"""Where a job stands among those of its tenant: when it was accepted, and its id."""


class JobQuery(Struct, frozen=True, kw_only=True):
    """Jobs of a tenant, the newest first. What is None asks for nothing. Times exclude themselves; `after`: those that
    stand behind that place. `limit`: at most so many are given. `look`: at most so many are looked at, so that the time
    that it takes is bounded whatever is asked for."""

    tenant: str
    model: str | None = None
    status: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    after: Place | None = None
    limit: int
    look: int


class JobPage(Struct, frozen=True):
    """`next`: behind which place there may be more; None at the end. A page may be short, or empty, and have one."""

    jobs: list[Job]
    next: Place | None = None


class Subscription(ABC):
    """A wake-up call for one job."""

    @abstractmethod
    async def changed(self, timeout_s: float) -> bool:
        """Wait until the job may have changed since the last call (or since subscribing); False after `timeout_s`.

        A hint and no promise: read the store after it, and read again at least each second.
        """


class ResultStore(Reservations, JobBatches, DueJobs, Outbox):
    """A final job never changes, until it is deleted: neither its row nor its output's bytes, nor what was emitted
    before."""

    @abstractmethod
    async def project(self, batches: Sequence[LogBatch]) -> list[Job] | None:
        """Apply the facts of these batches, each of another source, and advance every source from its `start` to its
        `end`, all in one transaction.

        Returns the jobs that are different now, visible to every reader, and what is to be told of them is in the
        outbox. None if any source was not at its `start`:
        another projector has been here, nothing was changed, and the caller asks for the positions anew. Wakes
        subscriptions. Raises Unavailable.
        """

    @abstractmethod
    async def position(self, source: str) -> str:
        """How far `source` has been applied; START for a source never seen."""

    @abstractmethod
    async def positions(self) -> Mapping[str, str]:
        """How far each source that was ever seen has been applied."""

    @abstractmethod
    async def begin_rebuild(self, ends: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        """Empty the derived tables, positions included, in one transaction; owned tables stay. From then on until
        `end_rebuild` the reading of jobs raises Unavailable with the code `rebuilding`, in every process.

        `ends` tells where the log's sources end. It is asked when nothing can become visible any more, so that once all
        of them are passed again, so is everything that was ever visible. Its answer is kept with the store, so that a
        rebuild outlives whoever began it; if it raises, nothing has changed.
        """

    @abstractmethod
    async def rebuilding(self) -> Mapping[str, str] | None:
        """The `until` of the rebuild that was begun and not ended; None if there is none."""

    @abstractmethod
    async def end_rebuild(self) -> None:
        """Jobs can be read again. Harmless when no rebuild was begun."""

    @abstractmethod
    async def get(self, tenant: str, job_id: str) -> Job | None:
        """The job, its output included, or its tombstone; None if no request or event about it has been applied, or if
        it is a stub."""

    @abstractmethod
    async def list_jobs(self, query: JobQuery) -> JobPage:
        """Those that fit, the newest first, without their outputs."""

    @abstractmethod
    async def partials(self, tenant: str, job_id: str, attempt: int, chunk: int, limit: int) -> list[Partial]:
        """What was emitted from chunk number `chunk` of `attempt` on, later attempts included: the row that holds it
        and those that follow, at most `limit`. All the chunks of which a job tells that was read before are there,
        unless its attempt is over and another follows. Raises Unavailable."""

    @abstractmethod
    async def queues(self) -> list[LaneCount]:
        """Of every model and lane with a job that waits or runs, over all tenants. Takes about a millisecond, however
        many wait."""

    @abstractmethod
    async def ahead(self, job: Job, look: int) -> int:
        """How many of its lane wait that were accepted before it, of whichever tenant; counts up to `look`."""

    @abstractmethod
    async def used(self, tenant: str, *, minute_from: float, day_from: float, most: Use) -> Use:
        """Jobs of a tenant: those accepted after `minute_from`, those after `day_from`, those that are not final. Of
        each at most so many as `most` says are counted: the time that it takes is bounded by that."""

    @abstractmethod
    def subscribe(self, tenant: str, job_id: str) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe first, then read, then wait: so that no change falls between."""
