"""One thread that writes, many writes in one transaction (group commit)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw
import structlog
from msgspec import Struct

from forebay.adapters.sqlite.checkpoint import Checkpointer
from forebay.adapters.sqlite.failures import CommitUnclear, translate
from forebay.core import crash
from forebay.core.errors import ForebayError, Unavailable

log = structlog.get_logger(__name__)

A = TypeVar("A")
R = TypeVar("R")
Operation = Callable[[apsw.Connection, Sequence[A]], Sequence[R]]
"""Carries out all calls of one kind that wait, and returns one result for each, in order."""

GROUP_MOST = 512
"""Calls in one transaction: bounds how long the first of them waits for the others."""


class _Call(Struct, frozen=True, eq=False):
    operation: Operation[Any, Any]
    argument: Any
    durable: bool
    committed: Callable[[Any], None] | None
    future: asyncio.Future[Any]


class Writer:
    """Takes everything that waits, runs it in one transaction, commits, then wakes each event loop once.

    Calls of one operation keep their order; for an order between operations, await the first. If anything in a group
    raises, the group is rolled back and each call runs again in a transaction of its own, so that only the guilty one
    fails.

    With `flush`, a group that holds a durable call is committed under synchronous=FULL, any other under NORMAL. That
    makes the durable call survive a power cut *and* everything committed before it: under FULL "an additional sync
    operation of the WAL file happens after each transaction commit" (sqlite.org/pragma.html#pragma_synchronous), and
    that sync is of the file, in which the frames of earlier commits stand before the new ones. Recovery replays frames
    from the start (sqlite.org/walformat.html, section 4.1).
    """

    def __init__(self, connection: apsw.Connection, path: Path, checkpointer: Checkpointer, *, flush: bool) -> None:
        self._connection = connection
        self._path = path
        self._checkpointer = checkpointer
        self._flush = flush
        self._synchronous = ""
        self._wal_pages = 0
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()
        self._closed = False
        self._broken: ForebayError | None = None
        self._thread = threading.Thread(target=self._run, name="forebay-sqlite-writer", daemon=True)

    def start(self) -> None:
        self._connection.set_wal_hook(self._count_wal_pages)
        self._thread.start()

    def stop(self) -> None:
        """Finish what is in hand. Blocks until the thread has ended."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def submit(
        self,
        operation: Operation[A, R],
        argument: A,
        *,
        durable: bool,
        committed: Callable[[R], None] | None = None,
    ) -> asyncio.Future[R]:
        """The result of `operation` for `argument`, once committed.

        `committed(result)` runs on the event loop just before the future resolves, also when nobody waits for it any
        more: cancelling the future does not take the write back.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(Unavailable(f"{self._path} is closed"))
        else:
            self._waiting.put(_Call(operation, argument, durable, committed, future))
        return future

    def _run(self) -> None:
        closing = False
        while not closing:
            group, closing = self._gather()
            if group:
                self._settle(group, self._carry_out(group))
                self._checkpointer.committed(self._connection, self._wal_pages)

    def _gather(self) -> tuple[list[_Call], bool]:
        """Everything that waits, at least one call; and whether the end was among it."""
        group: list[_Call] = []
        call = self._waiting.get()
        while call is not None:
            group.append(call)
            if len(group) == GROUP_MOST:
                return group, False
            try:
                call = self._waiting.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _carry_out(self, group: list[_Call]) -> list[Any]:
        """One result or exception per call."""
        try:
            return self._transact(group)
        except CommitUnclear as exc:
            return [exc] * len(group)
        except Exception as exc:  # the edge of the loop: whatever an operation raises belongs to its caller
            if len(group) == 1:
                return [translate(exc, self._path)]
            return [result for call in group for result in self._carry_out([call])]

    def _transact(self, group: list[_Call]) -> list[Any]:
        if self._broken is not None:
            raise self._broken
        self._set_synchronous("FULL" if self._flush and any(call.durable for call in group) else "NORMAL")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            results = self._operate(group)
            crash.reach("sqlite.before_commit")
            self._commit()
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        crash.reach("sqlite.after_commit")
        return results

    def _operate(self, group: list[_Call]) -> list[Any]:
        by_operation: dict[Operation[Any, Any], list[int]] = {}
        for index, call in enumerate(group):
            by_operation.setdefault(call.operation, []).append(index)
        results: list[Any] = [None] * len(group)
        for operation, indexes in by_operation.items():
            outcome = operation(self._connection, [group[index].argument for index in indexes])
            for index, result in zip(indexes, outcome, strict=True):
                results[index] = result
        return results

    def _commit(self) -> None:
        """After an I/O error here nothing more is written until the next start: a second fsync may report success for
        pages that the first one lost (the lesson of PostgreSQL, wiki.postgresql.org/wiki/Fsync_Errors)."""
        try:
            self._connection.execute("COMMIT")
        except apsw.IOError as exc:
            reason = f"{translate(exc, self._path)}; restart once the disk is well again"
            self._broken = Unavailable(reason, retry_after_s=30.0)
            log.error("sqlite.commit_failed", path=str(self._path), reason=reason)
            raise CommitUnclear(reason, retry_after_s=30.0) from exc

    def _set_synchronous(self, level: str) -> None:
        if level != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level

    def _count_wal_pages(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _settle(self, group: list[_Call], results: list[Any]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Call, Any]]] = {}
        for call, result in zip(group, results, strict=True):
            by_loop.setdefault(call.future.get_loop(), []).append((call, result))
        for loop, settled in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, settled)
            except RuntimeError:
                # The loop was closed before its writes came back; nobody is left to be told.
                log.warning("sqlite.caller_gone", writes=len(settled))


def _resolve(settled: list[tuple[_Call, Any]]) -> None:
    for call, result in settled:
        failed = isinstance(result, BaseException)
        if call.committed is not None and not failed:
            call.committed(result)
        if call.future.done():
            continue
        if failed:
            call.future.set_exception(result)
        else:
            call.future.set_result(result)
