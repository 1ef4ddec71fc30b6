"""The worker's side of a runner: start the child process, hand it batches, notice when it dies or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from forebay.core import crash
from forebay.core.errors import ForebayError, Misconfigured
from forebay.core.event import JobError
from forebay.core.model import ModelSpec
from forebay.worker import frames
from forebay.worker.child import Child

PIPELINE_DEPTH = 2
"""Batches in a runner at once: one is predicted while the next is decoded. A third would only wait."""

OUT_OF_MEMORY = "out_of_memory"

log = structlog.get_logger()


class BatchFailed(ForebayError):
    """A batch gave no outcomes: it raised, or the runner died or overran its time. Who is guilty is not said.

    `lost_runner`: the runner is gone with it. `begun`: the attempt was put on record. `untouched`: that is all that
    came of it, since the runner was killed while it ran another batch. `shared`: another batch in the same runner may
    have caused it.
    """

    def __init__(self, error: JobError, *, lost_runner: bool, begun: bool = True, untouched: bool = False) -> None:
        super().__init__(error.message, code=error.code, retryable=error.retryable)
        self.lost_runner = lost_runner
        self.shared = lost_runner or error.code == OUT_OF_MEMORY  # the limit is the process's, not the batch's
        self.begun = begun
        self.untouched = untouched


class _LinkClosed(Exception):
    """Nothing can be said to the child any more; how it ended is known once `died` is set."""


def _unheard(said: frames.Said) -> None:
    pass


class _Flight:
    """A batch in the runner. `going`: its attempt is on record and it may be predicted."""

    def __init__(
        self,
        answer: asyncio.Future[frames.Done],
        jobs: Sequence[str],
        timeout_s: float,
        hear: Callable[[frames.Said], None],
    ) -> None:
        self.answer = answer
        self.jobs = jobs
        self.timeout_s = timeout_s
        self.hear = hear
        self.going = False
        self.canceled: set[str] = set()

    @property
    def given_up(self) -> bool:
        """Nobody wants anything of it."""
        return self.canceled.issuperset(self.jobs)


class Runner:
    """One child process with one model.

    Batches are predicted in the order given, at most PIPELINE_DEPTH at a time. The child inherits no setting, no
    credential and no open file but its end of the socketpair.
    """

    def __init__(self, spec: ModelSpec, *, decode_threads: int, load_timeout_s: float) -> None:
        self._spec = spec
        self._decode_threads = decode_threads
        self._load_timeout_s = load_timeout_s
        self._child: Child | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._flights: dict[int, _Flight] = {}
        self._watched: _Flight | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None  # with a batch that was given up
        self._killed_for: _Flight | None = None
        self._sent = 0
        self._handing_over = asyncio.Lock()
        self._retiring = False
        self._closing = False
        self.died = asyncio.Event()
        self.death = JobError(code="runner_died", message="the runner died")

    @property
    def outstanding(self) -> int:
        """Batches handed in and not answered."""
        return len(self._flights)

    @property
    def usable(self) -> bool:
        """It lives, and has not said that its last answer was the last."""
        return not (self._retiring or self.died.is_set())

    @property
    def served(self) -> bool:
        """It was handed at least one batch."""
        return self._sent > 0

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    async def start(self) -> Mapping[str, Any]:
        """Spawn the child and wait until the model is loaded; returns what the runtime tells of it.

        Raises Misconfigured with the reason when no child can be started, the model cannot be loaded, or the child dies
        while loading or takes over `load_timeout_s`; it is gone then.
        """
        reader = await self._spawn()
        try:
            ready = await self._greet(reader)
        except BaseException:
            await self.kill()
            raise
        self._listener = asyncio.create_task(self._listen(reader), name=f"runner-{self.pid}")
        return ready.facts

    async def _spawn(self) -> asyncio.StreamReader:
        """Raises Misconfigured: too many processes or open files, no memory. The next try may do better."""
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    self._child = Child(theirs)
                    reader, self._writer = await asyncio.open_unix_connection(sock=ours)
                except BaseException:
                    ours.close()
                    await self.kill()
                    raise
        except OSError as error:
            raise Misconfigured(
                f"no process can be started for it: {error.strerror or error}", code="model_load_failed"
            ) from error
        return reader

    async def _greet(self, reader: asyncio.StreamReader) -> frames.Ready:
        """Hand over the model and wait until it is loaded. Raises Misconfigured."""
        try:
            self._send(frames.Load(self._spec, self._decode_threads))
            async with asyncio.timeout(self._load_timeout_s):
                first = await _read(reader)
        except TimeoutError:
            raise Misconfigured(
                f"loading took more than {self._load_timeout_s:g} s (setting load_timeout_s)", code="model_load_timeout"
            ) from None
        except ValueError as error:
            raise Misconfigured("it wrote to the link of its runner while loading", code="model_load_failed") from error
        if isinstance(first, frames.Ready):
            return first
        await self.kill()
        reason = first.reason if isinstance(first, frames.LoadFailed) else f"it {self._how_it_ended()} while loading"
        raise Misconfigured(reason, code="model_load_failed")

    async def predict(
        self,
        items: Sequence[frames.Item],
        begin: Callable[[], Awaitable[None]],
        timeout_s: float,
        hear: Callable[[frames.Said], None] = _unheard,
    ) -> frames.Done:
        """The outcomes of one batch. The child decodes at once and predicts when `begin()` has put the attempt on
        record. What the model says of a job meanwhile goes to `hear`, unless nobody wants it any more; ValueError from
        there ends the runner, as whatever else no runner of ours would say.

        `timeout_s` runs from the moment the batch is first in the runner and on record. Raises BatchFailed; after a
        timeout or a death every batch in the runner raises it and the runner is gone. If `begin` raises, the batch is
        dropped unpredicted and the error passed on.
        """
        self._sent += 1
        number = self._sent
        jobs = [item.job_id for item in items]
        flight = _Flight(asyncio.get_running_loop().create_future(), jobs, timeout_s, hear)
        self._flights[number] = flight
        try:
            async with self._handing_over:  # a batch's Go goes before the next batch, which then delays only itself
                self._send_batch(frames.Batch(number, list(items)))
                for job_id in flight.canceled:  # while it waited for its turn to be sent
                    self._send(frames.Cancel(number, job_id))
                try:
                    await begin()
                except BaseException:
                    with contextlib.suppress(_LinkClosed):  # it is gone, and has nothing to be told
                        self._send(frames.Go(number, go=False))
                    raise
                crash.reach("worker.begun")
                flight.going = True
                self._watch()
                self._send(frames.Go(number))
            await self._drain()
            return await flight.answer
        except _LinkClosed:
            await self.died.wait()
            raise BatchFailed(self.death, lost_runner=True, begun=flight.going) from None
        finally:
            self._land(number)

    def cancel(self, job_id: str) -> None:
        """Nobody wants the output of this job any more: its model is told, if it is here. Once that holds for a whole
        batch, and it goes on for the model's `cancel_grace_s`, the runner is killed; so a neighbour never suffers."""
        for number, flight in self._flights.items():
            if job_id in flight.jobs and job_id not in flight.canceled:
                flight.canceled.add(job_id)
                with contextlib.suppress(_LinkClosed):  # it is gone, and has nothing to be told
                    self._send(frames.Cancel(number, job_id))
        self._watch()

    def _watch(self) -> None:
        """Time the batch that is first in the runner, unless it still waits for its attempt to be recorded."""
        loop = asyncio.get_running_loop()
        first = next(iter(self._flights.values()), None)
        if first is not self._watched:
            for timer in (self._watchdog, self._patience):
                if timer is not None:
                    timer.cancel()
            self._watched = self._watchdog = self._patience = None
            if first is not None and first.going:
                self._watched = first
                self._watchdog = loop.call_later(first.timeout_s, self._overrun, first)
        if self._watched is not None and self._watched.given_up and self._patience is None:
            self._patience = loop.call_later(self._spec.limits.cancel_grace_s, self._lose_patience, self._watched)

    def _overrun(self, flight: _Flight) -> None:
        if flight.answer.done():
            return
        self.death = JobError(code="run_timeout", message=f"the run took more than {flight.timeout_s:g} s")
        self._end_child()  # the listener sees the link end and buries the child

    def _lose_patience(self, flight: _Flight) -> None:
        if flight.answer.done():
            return
        self.death = JobError(code="canceled", message="all jobs of its batch were canceled, and it went on")
        self._killed_for = flight
        self._end_child()

    def _land(self, number: int) -> None:
        answer = self._flights.pop(number).answer
        if answer.done() and not answer.cancelled():
            answer.exception()  # seen, whoever stopped waiting for it
        self._watch()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Answer the waiting batches until the child's end closes."""
        try:
            while (frame := await _read(reader)) is not None:
                if not isinstance(frame, frames.Said | frames.Done | frames.Raised):
                    raise ValueError(f"a {type(frame).__name__} frame after loading")
                flight = self._flights.get(frame.number)
                if flight is None or flight.answer.done():
                    continue
                if isinstance(frame, frames.Said):
                    if not (flight.going and 0 <= frame.place < len(flight.jobs)):
                        raise ValueError(f"a word on input {frame.place} of a batch of {len(flight.jobs)}")
                    if flight.jobs[frame.place] not in flight.canceled:
                        flight.hear(frame)
                elif isinstance(frame, frames.Done):
                    if len(frame.outcomes) != len(flight.jobs):
                        raise ValueError(f"{len(frame.outcomes)} outcomes for {len(flight.jobs)} inputs")
                    flight.answer.set_result(frame)
                else:
                    self._retiring = self._retiring or frame.last
                    flight.answer.set_exception(BatchFailed(frame.error, lost_runner=False))
        except ValueError as error:  # a model wrote to our socket: nothing after it can be trusted
            log.error("runner.spoke_nonsense", model=self._spec.name, pid=self.pid, error=str(error))
        finally:
            await self._bury()

    async def _bury(self) -> None:
        if not self._closing:  # else it is ending by itself, and `close` sees to it that it does
            self._end_child()
        await self._child_gone()
        if self.death.code == "runner_died":
            self.death = JobError(code="runner_died", message=f"the runner {self._how_it_ended()}")
        if self._writer is not None:
            self._writer.close()
        self.died.set()
        # What was behind the batch for which it was killed has not run, unless that batch ended in this very moment.
        untouched = self._killed_for is not None and not self._killed_for.answer.done()
        for flight in self._flights.values():
            if not flight.answer.done():
                apart = untouched and flight is not self._killed_for
                flight.answer.set_exception(BatchFailed(self.death, lost_runner=True, untouched=apart))

    async def kill(self) -> None:
        """SIGKILL the child and its process group; returns when it is gone. Harmless when it is gone already."""
        self._end_child()
        if self._writer is not None:
            self._writer.close()
        if self._listener is not None:
            await self._listener
        else:
            await self._child_gone()
            self.died.set()

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()

    async def _child_gone(self) -> None:
        if self._child is not None:
            await self._child.gone()

    def _how_it_ended(self) -> str:
        return "is gone" if self._child is None else self._child.how_it_ended()

    async def close(self, grace_s: float) -> None:
        """Let the child answer what it has, clean up and end by itself; kill it after `grace_s`."""
        if self._listener is not None:
            try:
                self._say_no_more()
                async with asyncio.timeout(grace_s):
                    await asyncio.shield(self._listener)
            except TimeoutError:
                log.warning("runner.killed_at_stop", model=self._spec.name, pid=self.pid, grace_s=grace_s)
        await self.kill()

    def _send(self, frame: frames.ToRunner) -> None:
        """Raises _LinkClosed; a write to a closed transport raises one thing on one event loop, nothing on another."""
        assert self._writer is not None
        if self._closing or self.died.is_set() or self._writer.is_closing():
            raise _LinkClosed
        self._writer.write(frames.encode(frame))

    def _send_batch(self, batch: frames.Batch) -> None:
        """Raises BatchFailed, as a model's error would be, for a batch that fits no frame: in halves it may fit."""
        try:
            self._send(batch)
        except ForebayError as error:
            raise BatchFailed(JobError(code=error.code, message=error.message), lost_runner=False) from error

    def _say_no_more(self) -> None:
        """Close our half of the link: the child sees its end, and what it has to say still arrives."""
        assert self._writer is not None
        if not (self._closing or self._writer.is_closing()):
            self._closing = True
            self._writer.write_eof()

    async def _drain(self) -> None:
        assert self._writer is not None
        with contextlib.suppress(ConnectionError):  # the listener sees the link end, too, and fails the batch
            await self._writer.drain()


async def _read(reader: asyncio.StreamReader) -> frames.FromRunner | None:
    """The next frame; None at the end of the link. Raises ValueError (msgspec's errors are such) for what is no
    frame."""
    try:
        length = int.from_bytes(await reader.readexactly(frames.LENGTH_BYTES), "big")
        frame: frames.FromRunner = frames.decode_from_runner(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return frame
