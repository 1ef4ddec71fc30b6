"""The queue: the table `pending` says which rows of the log wait, and counts their attempts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec
import structlog

from forebay.adapters.sqlite.database import Database
from forebay.adapters.sqlite.failures import CommitUnclear
from forebay.adapters.sqlite.rows import LOG_COLUMNS, LogRow, from_log, to_log
from forebay.adapters.sqlite.statements import parts, values, write_rows
from forebay.adapters.sqlite.waiting import NEVER_US, Waiting
from forebay.core.errors import InvalidRequest, OutcomeUnknown, Revoked
from forebay.core.event import JobError
from forebay.core.message import Channel, JobKey, Message, ReceivedMessage
from forebay.core.wire import DELETED_TYPE, REQUEST_TYPE
from forebay.ports.queue import Consumer, Queue, QueueFeatures

log = structlog.get_logger(__name__)

FORGOTTEN_AT_ONCE = 500
"""Rows of the log that one write deletes: some 10 ms."""

_encode = msgspec.json.Encoder().encode
_seqs = msgspec.json.Decoder(list[int]).decode
_places = msgspec.json.Decoder(list[tuple[int, str | None, str | None]]).decode

Held = tuple[str, str, int, int]
"""model, lane, due_at_us, seq: the key of a row in hand"""

Forgotten = tuple[int, dict[tuple[str, str], list[int]]]
"""How many rows of the log were deleted; of each model and lane, those that waited there."""


class SqliteQueue(Queue):
    """`clock` gives seconds since the epoch; only delays depend on it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._channels: dict[Channel, Waiting] = {}

    @property
    def features(self) -> QueueFeatures:
        return QueueFeatures(survives_restart=True, durability=self._database.durability)

    async def publish(self, channel: Channel, messages: Sequence[Message]) -> None:
        if not messages:
            return
        waiting = self._waiting(channel)  # before the write, so that its count does not include it

        def committed(count: int) -> None:
            waiting.arrived(count)
            self._database.log_grew.ring()

        now = self._database.log_clock.now()
        rows = [to_log(message, now) for message in messages]
        try:
            await self._database.write(_publish, (channel, rows), durable=True, committed=committed)
        except CommitUnclear as exc:
            raise OutcomeUnknown(exc.message, job_id=messages[0].job_id, retry_after_s=exc.retry_after_s) from exc

    def consumer(self, channel: Channel) -> Consumer:
        return SqliteConsumer(self._database, channel, self._waiting(channel), self._clock)

    async def depth(self, channel: Channel) -> int:
        return self._waiting(channel).depth

    async def forget(self, jobs: Sequence[JobKey], *, wholly: bool = False) -> None:
        for part in parts(jobs):
            rows = FORGOTTEN_AT_ONCE
            while rows == FORGOTTEN_AT_ONCE:  # in between others may write
                rows, _ = await self._database.write(_forget, (part, wholly), durable=False, committed=self._forgotten)

    def _forgotten(self, forgotten: Forgotten) -> None:
        for (model, lane), seqs in forgotten[1].items():
            if waiting := self._channels.get(Channel(model, lane)):
                waiting.forgotten(seqs)

    async def forward_delayed(self) -> None:
        await asyncio.Event().wait()  # what is due comes by itself

    def _waiting(self, channel: Channel) -> Waiting:
        waiting = self._channels.get(channel)
        if waiting is None:
            waiting = self._channels[channel] = Waiting(self._database, channel)
        return waiting


class SqliteConsumer(Consumer):
    """Receiving reads and writes nothing; a receipt is the row's number."""

    def __init__(self, database: Database, channel: Channel, waiting: Waiting, clock: Callable[[], float]) -> None:
        self._database = database
        self._channel = channel
        self._waiting = waiting
        self._clock = clock
        self._hand: dict[Any, Held] = {}
        self._begun: set[int] = set()  # of those in hand, the rows that say `running` because of us

    async def receive(self, max_messages: int, wait_s: float) -> list[ReceivedMessage]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            now_us = int(self._clock() * 1e6)
            found = self._waiting.take(max_messages, now_us)
            remaining_s = deadline - loop.time()
            if found or remaining_s <= 0:
                return [self._received(*row) for row in found]
            due_us = self._waiting.next_due_us()
            due_s = remaining_s if due_us == NEVER_US else (due_us - now_us) / 1e6
            await self._waiting.bell.wait(min(remaining_s, due_s))

    def _received(
        self,
        due_at_us: int,
        seq: int,
        attempt: int,
        interruptions: int,
        tenant: str,
        job_id: str,
        headers: bytes,
        value: bytes,
        logged_at: float,
    ) -> ReceivedMessage:
        self._hand[seq] = (self._channel.model, self._channel.lane, due_at_us, seq)
        try:
            message = from_log(tenant, job_id, headers, value)
        except InvalidRequest as exc:  # handed out all the same, for the worker to end the job
            log.error("queue.malformed", seq=seq, job=job_id, reason=exc.message)
            message = Message(tenant=tenant, job_id=job_id, headers={}, value=value)
        return ReceivedMessage(
            message=message, receipt=seq, attempt=attempt, interruptions=interruptions, logged_at=logged_at
        )

    def holds(self, received: ReceivedMessage) -> bool:
        return received.receipt in self._hand

    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        if not all(self.holds(one) for one in received):
            raise Revoked("messages are to be begun that are no longer in hand")
        if held := self._held(received):
            first = [key for key in held if key[3] not in self._begun]
            again = [key for key in held if key[3] in self._begun]
            await self._database.write(
                _begin, (first, again), durable=False, committed=lambda _: self._begun.update(key[3] for key in first)
            )

    async def retract(self, received: Sequence[ReceivedMessage]) -> None:
        if held := [key for key in self._held(received) if key[3] in self._begun]:
            seqs = [key[3] for key in held]
            await self._database.write(
                _retract, held, durable=False, committed=lambda _: self._begun.difference_update(seqs)
            )

    async def ack(self, received: Sequence[ReceivedMessage]) -> None:
        if held := self._held(received):
            await self._database.write(_delete, held, durable=False, committed=lambda _: self._gone(held))

    async def reject(self, received: Sequence[ReceivedMessage], error: JobError) -> None:
        await self.ack(received)  # a dead letter is a failed job, which the log and the store have

    async def nack(self, received: Sequence[ReceivedMessage], delay_s: float = 0.0) -> None:
        held = self._held(received)
        if not held:
            return
        due_at_us = int((self._clock() + delay_s) * 1e6) if delay_s > 0 else 0
        await self._database.write(
            _delay,
            (due_at_us, held, frozenset(self._begun)),
            durable=False,
            committed=lambda _: self._given_back(held, due_at_us),
        )

    def delay_of(self, delay_s: float) -> float:
        return delay_s

    async def close(self) -> None:
        """Waits for writes that were handed in before, so that no row is given back and deleted at once."""
        try:
            if self._hand:
                await self._database.write(_nothing, None, durable=False)
        finally:
            self._give_back([(key, key[2]) for key in self._hand.values()])

    def _held(self, received: Sequence[ReceivedMessage]) -> list[Held]:
        """The keys of those that are in this consumer's hand: what is not was acknowledged or given back before."""
        return [held for one in received if (held := self._hand.get(one.receipt)) is not None]

    def _gone(self, held: list[Held]) -> None:
        for key in held:
            if self._hand.pop(key[3], None) is not None:
                self._begun.discard(key[3])
                self._waiting.gone(key[3])

    def _given_back(self, held: list[Held], due_at_us: int) -> None:
        self._give_back([(key, due_at_us) for key in held])

    def _give_back(self, held: list[tuple[Held, int]]) -> None:
        for key, due_at_us in held:
            if self._hand.pop(key[3], None) is not None:
                self._begun.discard(key[3])
                self._waiting.given_back(due_at_us, key[3])
        self._waiting.bell.ring()


def _publish(connection: apsw.Connection, calls: Sequence[tuple[Channel, list[LogRow]]]) -> Sequence[int]:
    write_rows(connection, f"INSERT INTO log ({LOG_COLUMNS}) VALUES", [row for _, rows in calls for row in rows])
    channels = [channel for channel, rows in calls for _ in rows]
    first = connection.last_insert_rowid() - len(channels) + 1
    pending = [(channel.model, channel.lane, 0, seq, 0, 0, 0) for seq, channel in enumerate(channels, start=first)]
    write_rows(
        connection, "INSERT INTO pending (model, lane, due_at_us, seq, attempt, running, cut_off) VALUES", pending
    )
    return [len(rows) for _, rows in calls]


def _begin(connection: apsw.Connection, calls: Sequence[tuple[list[Held], list[Held]]]) -> Sequence[None]:
    for key, seqs in _by_key([first for first, _ in calls]).items():
        sql = f"UPDATE pending SET attempt = attempt + 1, cut_off = cut_off + running, running = 1 {_WHERE}"
        connection.execute(sql, (*key, _encode(seqs).decode()))
    for key, seqs in _by_key([again for _, again in calls]).items():
        connection.execute(f"UPDATE pending SET attempt = attempt + 1 {_WHERE}", (*key, _encode(seqs).decode()))
    return [None] * len(calls)


def _retract(connection: apsw.Connection, calls: Sequence[list[Held]]) -> Sequence[None]:
    for key, seqs in _by_key(calls).items():
        connection.execute(
            f"UPDATE pending SET attempt = attempt - 1, running = 0 {_WHERE}", (*key, _encode(seqs).decode())
        )
    return [None] * len(calls)


def _delete(connection: apsw.Connection, calls: Sequence[list[Held]]) -> Sequence[None]:
    for key, seqs in _by_key(calls).items():
        connection.execute(f"DELETE FROM pending {_WHERE}", (*key, _encode(seqs).decode()))
    return [None] * len(calls)


def _delay(connection: apsw.Connection, calls: Sequence[tuple[int, list[Held], frozenset[int]]]) -> Sequence[None]:
    for due_at_us, held, begun in calls:
        for changes, rows in (
            ("due_at_us = ?, running = 0", [key for key in held if key[3] in begun]),
            ("due_at_us = ?", [key for key in held if key[3] not in begun]),
        ):
            for key, seqs in _by_key([rows]).items():
                connection.execute(f"UPDATE pending SET {changes} {_WHERE}", (due_at_us, *key, _encode(seqs).decode()))
    return [None] * len(calls)


def _forget(connection: apsw.Connection, calls: Sequence[tuple[Sequence[JobKey], bool]]) -> Sequence[Forgotten]:
    return [_forget_some(connection, jobs, wholly) for jobs, wholly in calls]


def _forget_some(connection: apsw.Connection, jobs: Sequence[JobKey], wholly: bool) -> Forgotten:
    of_jobs = (*(text for key in jobs for text in key), wholly, DELETED_TYPE, FORGOTTEN_AT_ONCE)
    rows: Any = connection.execute(_OF_JOBS.format(values(2, len(jobs))), of_jobs).get
    requests: Any = connection.execute(_REQUESTS, (rows, REQUEST_TYPE)).get
    waited: dict[tuple[str, str], list[int]] = {}
    for seq, model, lane in _places(requests):
        if model is not None and lane is not None:
            waited.setdefault((model, lane), []).append(seq)
    for channel, seqs in waited.items():
        arguments = (*channel, _encode(seqs).decode())
        gone: list[Any] = [
            row for sql in (_NO_LONGER_PENDING, _NO_LONGER_DELAYED) for row in connection.execute(sql, arguments)
        ]
        waited[channel] = [seq for (seq,) in gone]
    connection.execute("DELETE FROM log WHERE seq IN (SELECT value FROM json_each(?))", (rows,))
    return len(_seqs(rows)), waited


def _nothing(connection: apsw.Connection, calls: Sequence[None]) -> Sequence[None]:
    return calls


# Each gives one row, since each step of a statement may cost much (`statements`). Headers may be no JSON.
_KIND = "CASE WHEN json_valid(headers) THEN headers ->> '$.ce_type' END"
_OF_JOBS = f"""
SELECT json_group_array(seq) FROM (
    SELECT seq FROM log WHERE (tenant, job_id) IN (VALUES {{}}) AND (? OR {_KIND} IS NOT ?) LIMIT ?
)
"""
_REQUESTS = f"""
SELECT json_group_array(json_array(seq, headers ->> '$.forebay-model', headers ->> '$.forebay-lane')) FROM log
WHERE seq IN (SELECT value FROM json_each(?)) AND {_KIND} = ?
"""
_OF_CHANNEL = "DELETE FROM pending WHERE model = ? AND lane = ? AND"
_AMONG = "AND seq IN (SELECT value FROM json_each(?))"
_NO_LONGER_PENDING = f"{_OF_CHANNEL} due_at_us = 0 {_AMONG} RETURNING seq"
_NO_LONGER_DELAYED = f"{_OF_CHANNEL} due_at_us > 0 {_AMONG} RETURNING seq"
_WHERE = "WHERE model = ? AND lane = ? AND due_at_us = ? AND seq IN (SELECT value FROM json_each(?))"


def _by_key(calls: Sequence[list[Held]]) -> dict[tuple[str, str, int], list[int]]:
    """The numbers of the rows that share the rest of their key, so that one statement finds them."""
    by_key: dict[tuple[str, str, int], list[int]] = {}
    for held in calls:
        for model, lane, due_at_us, seq in held:
            by_key.setdefault((model, lane, due_at_us), []).append(seq)
    return by_key
