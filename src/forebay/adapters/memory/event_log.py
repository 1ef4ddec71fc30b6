"""The event log over a shared MemoryLog."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from forebay.adapters.memory.log import MemoryLog
from forebay.core.errors import InvalidRequest
from forebay.core.fact import Event, Fact
from forebay.core.message import Message
from forebay.core.wire import decode, encode_event
from forebay.ports.event_log import START, EventLog, LogBatch

log = structlog.get_logger(__name__)

SOURCE = "log"


class MemoryEventLog(EventLog):
    """One source, "log"; a position is a count of messages."""

    def __init__(self, shared: MemoryLog) -> None:
        self._log = shared

    async def publish(self, events: Sequence[Event]) -> None:
        self._log.append([encode_event(event) for event in events])

    async def now(self) -> float:
        return self._log.clock.now()

    def sources(self) -> tuple[str, ...]:
        return (SOURCE,)

    async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
        start = _count(after[SOURCE])
        try:
            async with asyncio.timeout(max(wait_s, 0.0)):
                await self._log.longer_than(start)
        except TimeoutError:
            return []
        messages = self._log.messages[start : start + limit]
        facts: list[Fact] = []
        for number, message in enumerate(messages, start=start):
            try:
                facts.append(decode(message, str(number), self._log.logged_at[number]))
            except InvalidRequest as exc:
                log.warning("event_log.malformed", job=message.job_id, reason=exc.message)
        end = str(start + len(messages))
        malformed = len(messages) - len(facts)
        return [LogBatch(source=SOURCE, start=after[SOURCE], end=end, facts=tuple(facts), malformed=malformed)]

    async def at(self, places: Sequence[str]) -> list[Message | None]:
        messages = self._log.messages
        return [messages[int(place)] if int(place) < len(messages) else None for place in places]

    async def ends(self) -> Mapping[str, str]:
        return {SOURCE: str(len(self._log.messages))}

    async def behind(self, after: Mapping[str, str]) -> Mapping[str, int]:
        return {SOURCE: len(self._log.messages) - _count(after.get(SOURCE, START))}


def _count(position: str) -> int:
    return 0 if position == START else int(position)
