"""The states of one job as server-sent events (HTML Living Standard, section 9.2).

An event has the word of the log for the state that it tells (`queued`, `started`, or how the job ended) and holds the
job object, without the output. Its id says how far the job is, so that any replica can go on where another stopped;
states that came and went between two looks are left out.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

from starlette.types import Receive, Scope, Send

from forebay.api.answers import IS_HEAD, NO_STORE, Header
from forebay.core.event import EventKind
from forebay.core.job import Job, JobStatus

LAST_EVENT_ID = "last-event-id"
STREAM_S = 300.0
"""Then a stream ends, and whoever still may comes again: so a key that was revoked is let in no longer than this."""

PING_S = 15.0
"""A comment so often, so that no proxy takes the connection for dead."""

RETRY_MS = 1000
"""After so long a client whose connection broke comes again."""

_STREAM_TYPE: Header = (b"content-type", b"text/event-stream")
_UNBUFFERED: Header = (b"x-accel-buffering", b"no")
"""nginx would hold events back."""

_ID = re.compile(r"([01])\.(\d{1,9})")
_PING = b": ping\n\n"

Place = tuple[int, int]
"""Of a state in the life of its job: whether that has ended, and the step: 2n after n attempts, one less while the last
of them runs. The end comes after every step, since an earlier attempt may have decided."""


def place_of(job: Job) -> Place:
    """Grows with every state that the job comes to."""
    return int(job.status.final), 2 * job.attempts - (job.status is JobStatus.RUNNING)


def read_place(text: str | None) -> Place:
    """That of a `Last-Event-ID`; before all others for none, and for one that is not ours."""
    match = _ID.fullmatch(text or "")
    return (int(match[1]), int(match[2])) if match else (-1, 0)


def is_over(job: Job, last: Place) -> bool:
    """Whether whoever saw `last` has seen the end."""
    return job.status.final and last[0] == 1


def _word(job: Job) -> str:
    """Of the log, of server-sent events and of webhooks (core.event.EventKind)."""
    return EventKind.STARTED if job.status is JobStatus.RUNNING else EventKind(job.status.value)


class EventStream:
    """An answer that lasts until the job is final, the caller has gone, or the service stops, which says so by ending:
    the caller comes again and goes on elsewhere. `changes` gives the job whenever it may have changed, and None where
    there was nothing to tell for PING_S."""

    def __init__(self, changes: AsyncIterator[Job | None], write: Callable[[Job], bytes], last: Place) -> None:
        self._changes = changes
        self._write = write
        self._last = last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [_STREAM_TYPE, NO_STORE, _UNBUFFERED]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope.get(IS_HEAD):
            await send({"type": "http.response.body", "body": b""})
            return
        await self._send(send, f"retry: {RETRY_MS}\n\n".encode())
        async for job in self._changes:
            if job is None:
                await self._send(send, _PING)
            elif (place := place_of(job)) > self._last:
                self._last = place
                await self._send(send, self._event(job, place))
        await send({"type": "http.response.body", "body": b""})

    def _event(self, job: Job, place: Place) -> bytes:
        head = f"id: {place[0]}.{place[1]}\nevent: {_word(job)}\ndata: ".encode()
        return head + self._write(job) + b"\n\n"

    @staticmethod
    async def _send(send: Send, body: bytes) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": True})
