"""Visible job state in two dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from msgspec.structs import replace

from forebay.core.errors import Unavailable
from forebay.core.job import Job, apply
from forebay.ports.event_log import START, LogBatch
from forebay.ports.store import JobPage, JobQuery, Place, ResultStore, Subscription


class MemoryStore(ResultStore):
    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}
        self._positions: dict[str, str] = {}
        self._subscriptions: dict[tuple[str, str], set[MemorySubscription]] = {}
        self._rebuilding: Mapping[str, str] | None = None

    async def project(self, batches: Sequence[LogBatch]) -> list[Job] | None:
        if any(self._positions.get(batch.source, START) != batch.start for batch in batches):
            return None
        self._positions.update((batch.source, batch.end) for batch in batches)
        changed: dict[tuple[str, str], Job] = {}
        for fact in (fact for batch in batches for fact in batch.facts):
            key = (fact.tenant, fact.job_id)
            before = self._jobs.get(key)
            after = apply(before, fact)
            if after is not before:
                changed[key] = self._jobs[key] = after
        for key in changed:
            for subscription in self._subscriptions.get(key, ()):
                subscription.wake()
        return [job for job in changed.values() if job.model]

    async def position(self, source: str) -> str:
        return self._positions.get(source, START)

    async def positions(self) -> Mapping[str, str]:
        return dict(self._positions)

    async def begin_rebuild(self, ends: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        until = await ends()
        self._jobs.clear()
        self._positions.clear()
        self._rebuilding = dict(until)

    async def rebuilding(self) -> Mapping[str, str] | None:
        return self._rebuilding

    async def end_rebuild(self) -> None:
        self._rebuilding = None

    async def get(self, tenant: str, job_id: str) -> Job | None:
        self._refuse_while_rebuilding()
        job = self._jobs.get((tenant, job_id))
        return job if job is not None and job.model else None

    async def list_jobs(self, query: JobQuery) -> JobPage:
        self._refuse_while_rebuilding()
        ranged = sorted(
            (job for job in self._jobs.values() if job.model and job.tenant == query.tenant and _in_range(job, query)),
            key=_place,
            reverse=True,
        )
        looked_at = ranged[: query.look]
        found = [
            replace(job, output=None)
            for job in looked_at
            if query.model in (None, job.model) and query.status in (None, job.status)
        ]
        if len(found) > query.limit:
            return JobPage(found[: query.limit], _place(found[query.limit - 1]))
        return JobPage(found, _place(looked_at[-1]) if len(looked_at) < len(ranged) else None)

    def _refuse_while_rebuilding(self) -> None:
        if self._rebuilding is not None:
            raise Unavailable("job states are being rebuilt from the log", code="rebuilding")

    def subscribe(self, tenant: str, job_id: str) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribe((tenant, job_id))

    @asynccontextmanager
    async def _subscribe(self, key: tuple[str, str]) -> AsyncIterator[Subscription]:
        subscription = MemorySubscription()
        of_job = self._subscriptions.setdefault(key, set())
        of_job.add(subscription)
        try:
            yield subscription
        finally:
            of_job.discard(subscription)
            if not of_job:
                self._subscriptions.pop(key, None)


def _place(job: Job) -> Place:
    return job.created_at, job.id


def _in_range(job: Job, query: JobQuery) -> bool:
    return (
        (query.created_after is None or job.created_at > query.created_after)
        and (query.created_before is None or job.created_at < query.created_before)
        and (query.after is None or _place(job) < query.after)
    )


class MemorySubscription(Subscription):
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def changed(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
