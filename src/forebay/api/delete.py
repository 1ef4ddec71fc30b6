"""Deleting a job before its time: one event in the log, and then nobody finds it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from forebay.api.cancel import LOGGED_WITHIN_S, SETTLED_WITHIN_S
from forebay.api.reading import JobReader
from forebay.core import crash
from forebay.core.errors import Conflict, Gone, Unavailable
from forebay.core.job import deletion
from forebay.ports.event_log import EventLog


class Deleter:
    def __init__(self, *, reader: JobReader, events: EventLog, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._events = events
        self._clock = clock

    async def delete(self, tenant: str, job_id: str, gone: Callable[[], Awaitable[bool]]) -> bool:
        """Whether it is gone for every reader; False only where the store is far behind. Repeating it is harmless.

        Raises NotFound as reading does, Conflict (`job_not_final`) for a job that has not ended, and Unavailable when
        it is not known that the log has it.
        """
        try:
            job = await self._reader.get(tenant, job_id)
        except Gone:
            return True
        if not job.status.final:
            raise Conflict(f"the job is {job.status.value}; cancel it first", code="job_not_final")
        try:
            async with asyncio.timeout(LOGGED_WITHIN_S):
                await self._events.publish([deletion(job, self._clock())])
        except TimeoutError as error:
            raise Unavailable(f"the log has not taken it within {LOGGED_WITHIN_S:g} s") from error
        crash.reach("api.deleted")
        return await self._reader.wait_until_gone(tenant, job.id, SETTLED_WITHIN_S, gone)
