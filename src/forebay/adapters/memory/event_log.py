"""The event log over a shared MemoryLog."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from forebay.adapters.memory.log import MemoryLog
from forebay.core.errors import InvalidRequest
from forebay.core.event import JobEvent, JobRequest
from forebay.core.wire import decode, encode_event
from forebay.ports.event_log import START, EventLog, LogBatch

log = structlog.get_logger(__name__)

SOURCE = "log"


class MemoryEventLog(EventLog):
    """One source, "log"; a position is a count of messages."""

    def __init__(self, shared: MemoryLog) -> None:
        self._log = shared

    async def publish(self, events: Sequence[JobEvent]) -> None:
        self._log.append([encode_event(event) for event in events])

    def sources(self) -> tuple[str, ...]:
        return (SOURCE,)

    async def read(self, source: str, after: str, limit: int, wait_s: float) -> LogBatch:
        start = 0 if after == START else int(after)
        try:
            async with asyncio.timeout(max(wait_s, 0.0)):
                await self._log.longer_than(start)
        except TimeoutError:
            return LogBatch(source=source, start=after, end=after, facts=())
        messages = self._log.messages[start : start + limit]
        facts: list[JobRequest | JobEvent] = []
        for message in messages:
            try:
                facts.append(decode(message))
            except InvalidRequest as exc:
                log.warning("event_log.malformed", job=message.job_id, reason=exc.message)
        end = str(start + len(messages))
        malformed = len(messages) - len(facts)
        return LogBatch(source=source, start=after, end=end, facts=tuple(facts), malformed=malformed)
