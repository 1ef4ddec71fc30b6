"""Cancelling a job: one event in the log, a word to the workers, and then whatever state won."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from forebay.api.reading import JobReader
from forebay.core import crash
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.job import Job
from forebay.ports.cancellations import Cancellations
from forebay.ports.event_log import EventLog

LOGGED_WITHIN_S = 2.5
"""Whoever calls while the backend is away is answered within 3 s."""

SETTLED_WITHIN_S = 5.0
"""Projection takes milliseconds; where it takes longer the caller is told to look again."""


class Canceler:
    def __init__(
        self, *, reader: JobReader, events: EventLog, cancellations: Cancellations, clock: Callable[[], float]
    ) -> None:
        self._reader = reader
        self._events = events
        self._cancellations = cancellations
        self._clock = clock

    async def cancel(self, tenant: str, job_id: str, gone: Callable[[], Awaitable[bool]]) -> Job:
        """The job in the final state that won; one that is not final only where the store is far behind, which tells
        nothing yet. Repeating it is harmless.

        Raises NotFound as reading does; Unavailable when it is not known that the log has it.
        """
        job = await self._reader.get(tenant, job_id)
        job_id = job.id
        if job.status.final:
            return job
        canceled = JobEvent(tenant=tenant, job_id=job_id, kind=EventKind.CANCELED, at=self._clock())
        try:
            async with asyncio.timeout(LOGGED_WITHIN_S):
                await self._events.publish([canceled])
        except TimeoutError as error:
            raise Unavailable(f"the log has not taken it within {LOGGED_WITHIN_S:g} s") from error
        crash.reach("api.canceled")
        # Only now: a worker that hears of it says nothing of the job any more.
        await self._cancellations.announce(tenant, job_id)
        return await self._reader.wait(tenant, job_id, SETTLED_WITHIN_S, gone)
