"""The life of one job as server-sent events (HTML Living Standard, section 9.2).

An event has the word of the log. For a state (`queued`, `started`, or how the job ended) it holds the job object,
without the output; states that came and went between two looks are left out. `output` holds a chunk that an attempt has
emitted: all of the newest attempt come, in order, behind its `started`. `progress` says how far it is, the newest word
only. The id says how far the job is, so that any replica can go on where another stopped.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing

import msgspec
import structlog
from msgspec import Raw, Struct
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from forebay.api.answers import IS_HEAD, NO_STORE, Header
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind
from forebay.core.job import Job, JobStatus
from forebay.core.partials import Partial

LAST_EVENT_ID = b"last-event-id"
STREAM_S = 300.0
"""Then a stream ends, and whoever still may comes again: so a key that was revoked is let in no longer than this."""

PING_S = 15.0
"""A comment so often, so that no proxy takes the connection for dead."""

RETRY_MS = 1000
"""After so long a client whose connection broke comes again."""

ROWS = 4
"""Of partial output at once, of some 256 KiB at most each (worker.interim)."""

_STREAM_TYPE: Header = (b"content-type", b"text/event-stream")
_UNBUFFERED: Header = (b"x-accel-buffering", b"no")
"""nginx would hold events back."""

_ID = re.compile(r"([01])\.(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?")
_PING = b": ping\n\n"

log = structlog.get_logger()


class Place(Struct, frozen=True, order=True):
    """How far the life of a job was told: whether it has ended, and the step, which is 2n after n attempts, one less
    while the last of them runs; of that one, how many chunks, and the number of its newest word on its progress.

    The end comes after every step, since an earlier attempt may have decided.
    """

    over: int
    step: int
    chunks: int = 0
    progress: int = 0

    @property
    def event_id(self) -> str:
        """The last two are left out where they are 0."""
        return f"{self.over}.{self.step}.{self.chunks}.{self.progress}".removesuffix(".0").removesuffix(".0")

    @property
    def attempt(self) -> int:
        """That of the chunks which come next."""
        return (self.step + 2) // 2


BEFORE_ALL = Place(-1, 0)


def place_of(job: Job) -> Place:
    """Of the state. Grows with every state that the job comes to."""
    return Place(int(job.status.final), 2 * job.attempts - (job.status is JobStatus.RUNNING))


def read_place(text: str | None) -> Place:
    """That of a `Last-Event-ID`; before all others for none, and for one that is not ours."""
    match = _ID.fullmatch(text or "")
    return Place(*(int(number or 0) for number in match.groups())) if match else BEFORE_ALL


def is_over(job: Job, last: Place) -> bool:
    """Whether whoever saw `last` has seen the end."""
    return job.status.final and last.over == 1


def _word(job: Job) -> str:
    """Of the log, of server-sent events and of webhooks (core.event.EventKind)."""
    return EventKind.STARTED if job.status is JobStatus.RUNNING else EventKind(job.status.value)


def _running(job: Job, attempt: int) -> Job:
    """A final job, as it was while that attempt ran."""
    return replace(
        job, status=JobStatus.RUNNING, attempts=attempt, finished_at=None, metrics=None, output=None, error=None
    )


class _Output(Struct, frozen=True):
    chunk: Raw
    attempt: int
    index: int


class _Progress(Struct, frozen=True):
    progress: float


_encode = msgspec.json.Encoder().encode
_chunks = msgspec.json.Decoder(list[Raw]).decode

ReadPartials = Callable[[Job, int, int, int], Awaitable[list[Partial]]]


class EventStream:
    """An answer that lasts until the job is final, the caller has gone, or the service stops, which says so by ending:
    the caller comes again and goes on elsewhere. `changes` gives the job whenever it may have changed, and None where
    there was nothing to tell for PING_S; `partials` is that of the store, for a job."""

    def __init__(
        self,
        changes: AsyncGenerator[Job | None, None],
        partials: ReadPartials,
        write: Callable[[Job], bytes],
        last: Place,
    ) -> None:
        self._changes = changes
        self._partials = partials
        self._write = write
        self._last = last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [_STREAM_TYPE, NO_STORE, _UNBUFFERED]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope.get(IS_HEAD):
            await send({"type": "http.response.body", "body": b""})
            return
        await self._send(send, f"retry: {RETRY_MS}\n\n".encode())
        try:
            async with aclosing(self._changes) as changes:
                async for job in changes:
                    if job is None:
                        await self._send(send, _PING)
                        continue
                    async for news in self._news(job):
                        await self._send(send, news)
        except Unavailable as error:  # the chunks cannot be read: the caller comes again, and misses none
            log.warning("watch.cut_short", code=error.code, error=error.message)
        await send({"type": "http.response.body", "body": b""})

    async def _news(self, job: Job) -> AsyncIterator[bytes]:
        """What was not told yet. What an attempt says of itself stands behind its start and before the end."""
        state, final = place_of(job), job.status.final
        if not final and state > self._last:
            yield self._event(state, _word(job), self._write(job))
        interim = job.interim if (self._last.over, self._last.step) == (state.over, state.step) else None
        if final or (interim is not None and interim.chunks > self._last.chunks):
            async for chunks in self._output(job):
                yield chunks
        if interim is not None and interim.progress is not None and interim.sequence > self._last.progress:
            place = Place(0, state.step, self._last.chunks, interim.sequence)
            yield self._event(place, EventKind.PROGRESS, _encode(_Progress(interim.progress)))
        if final and state > self._last:
            yield self._event(state, _word(job), self._write(job))

    async def _output(self, job: Job) -> AsyncIterator[bytes]:
        """The chunks that come next; while an attempt runs none of a later one, whose start must be told before."""
        while True:
            rows = await self._partials(job, self._last.attempt, self._last.chunks, ROWS)
            for row in rows:
                if row.attempt != job.attempts and not job.status.final:
                    return
                yield b"".join(self._of_row(job, row))
            if len(rows) < ROWS:
                return

    def _of_row(self, job: Job, row: Partial) -> Iterator[bytes]:
        start = place_of(_running(job, row.attempt))
        if start > self._last:  # it came and went between two looks, and whoever collects chunks must begin anew
            yield self._event(start, EventKind.STARTED, self._write(_running(job, row.attempt)))
        for index, chunk in enumerate(_chunks(row.chunks), row.first):
            if index >= self._last.chunks:
                place = replace(self._last, chunks=index + 1)
                yield self._event(place, EventKind.OUTPUT, _encode(_Output(chunk, row.attempt, index)))

    def _event(self, place: Place, word: str, data: bytes) -> bytes:
        self._last = place
        return f"id: {place.event_id}\nevent: {word}\ndata: ".encode() + data + b"\n\n"

    @staticmethod
    async def _send(send: Send, body: bytes) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": True})
