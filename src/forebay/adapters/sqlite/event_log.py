"""The event log: the table `log`, in which requests stand before what is said of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing

import apsw
import structlog

from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.rows import LOG_COLUMNS, LogRow, from_log, to_log
from forebay.adapters.sqlite.statements import write_rows
from forebay.core.errors import InvalidRequest
from forebay.core.event import EventKind, JobEvent
from forebay.core.fact import Event, Fact
from forebay.core.message import Message
from forebay.core.wire import decode, encode_event
from forebay.ports.event_log import START, EventLog, LogBatch

log = structlog.get_logger(__name__)

SOURCE = "log"
BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends after this many bytes of values: bounds the projector's memory when inputs are large."""

_SELECT = f"SELECT seq, {LOG_COLUMNS} FROM log WHERE seq > ? ORDER BY seq LIMIT ?"
_AT = "SELECT tenant, job_id, headers, value FROM log WHERE seq = ?"
_END = "SELECT coalesce(max(seq), 0) FROM log"
_COUNT = "SELECT count(*) FROM log WHERE seq > ?"


class SqliteEventLog(EventLog):
    """One source, "log"; a position is the number of its last row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(self, events: Sequence[Event]) -> None:
        now = self._database.log_clock.now()
        rows = [to_log(encode_event(event), now) for event in events]
        if rows:
            durable = any(map(_is_durable, events))
            await self._database.write(_append, rows, durable=durable, committed=self._appended)

    async def now(self) -> float:
        return self._database.log_clock.now()

    def sources(self) -> tuple[str, ...]:
        return (SOURCE,)

    async def read(self, after: Mapping[str, str], limit: int, wait_s: float) -> list[LogBatch]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            batch = self._read(after[SOURCE], limit)
            remaining_s = deadline - loop.time()
            if batch.end != batch.start:
                return [batch]
            if remaining_s <= 0:
                return []
            await self._database.log_grew.wait(remaining_s)

    def _read(self, after: str, limit: int) -> LogBatch:
        facts: list[Fact] = []
        seq, size_bytes, malformed = _seq(after), 0, 0
        start = seq
        with closing(self._database.rows(_SELECT, (start, limit))) as rows:
            for seq, tenant, job_id, headers, value, logged_at in rows:
                try:
                    facts.append(decode(from_log(tenant, job_id, headers, value), str(seq), logged_at))
                except InvalidRequest as exc:
                    malformed += 1
                    log.warning("event_log.malformed", seq=seq, job=job_id, reason=exc.message)
                size_bytes += len(value)
                if size_bytes >= BATCH_BYTES:
                    break
        end = after if seq == start else str(seq)
        return LogBatch(source=SOURCE, start=after, end=end, facts=tuple(facts), malformed=malformed)

    async def at(self, places: Sequence[str]) -> list[Message | None]:
        """A place is the number of a row."""
        return [self._at(place) for place in places]

    def _at(self, place: str) -> Message | None:
        for row in self._database.read(_AT, (int(place),)):
            try:
                return from_log(*row)
            except InvalidRequest as exc:
                log.warning("event_log.malformed", seq=int(place), reason=exc.message)
        return None

    async def ends(self) -> Mapping[str, str]:
        return {SOURCE: str(self._database.read(_END)[0][0])}

    async def behind(self, after: Mapping[str, str]) -> Mapping[str, int]:
        rows = await self._database.scan(_COUNT, (_seq(after.get(SOURCE, START)),))
        return {SOURCE: rows[0][0]}

    def _appended(self, result: None) -> None:
        self._database.log_grew.ring()


def _is_durable(event: Event) -> bool:
    """What somebody may have acted upon: a client, or a receiver that is called again where a try is forgotten."""
    return not isinstance(event, JobEvent) or event.kind.final or event.kind is EventKind.DELETED


def _seq(position: str) -> int:
    return 0 if position == START else int(position)


def _append(connection: apsw.Connection, calls: Sequence[list[LogRow]]) -> Sequence[None]:
    write_rows(connection, f"INSERT INTO log ({LOG_COLUMNS}) VALUES", [row for rows in calls for row in rows])
    return [None] * len(calls)
