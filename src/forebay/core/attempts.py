"""What is remembered of the attempts of a job: who ran it, when, and what became of it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from forebay.core.event import EventKind, JobError, JobEvent

MOST = 20
"""Of more attempts the oldest are forgotten, so that a row stays small whatever happens to its job."""

MESSAGE_CHARS = 500


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One hand-over to a runner. Without an end nobody said how it ended: its worker or its runner died, or the batch
    was run again in parts. Without a start the worker could not say that it had begun."""

    attempt: int
    worker: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    error: JobError | None = None


def after_event(history: tuple[Attempt, ...], event: JobEvent) -> tuple[Attempt, ...]:
    """The history after an event that moves the job. That of a job which ends in any other way than `failed` is
    dropped: nobody asks what went wrong."""
    if event.kind is EventKind.STARTED:
        begun = Attempt(attempt=event.attempt, worker=event.worker, started_at=event.at)
        return (*history, begun)[-MOST:]
    if event.kind not in (EventKind.QUEUED, EventKind.FAILED):
        return ()
    for place, one in enumerate(history):
        if one.attempt == event.attempt:
            ended = one if one.finished_at is not None else _ended(one, event)
            return (*history[:place], ended, *history[place + 1 :])
    if not event.attempt:
        return history
    return (*history, _ended(Attempt(attempt=event.attempt, worker=event.worker), event))[-MOST:]


def _ended(one: Attempt, event: JobEvent) -> Attempt:
    return replace(one, finished_at=event.at, error=_short(event.error))


def _short(error: JobError | None) -> JobError | None:
    if error is None or len(error.message) <= MESSAGE_CHARS:
        return error
    return replace(error, message=error.message[:MESSAGE_CHARS])
