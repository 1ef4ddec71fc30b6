"""What a job is and how it moves. Everything that moves a job's state is here, and nothing else does.

    queued ── started ──▶ running ── succeeded | failed | canceled ──▶ final
      ▲  │                   │
      │  └─ any final ─▶     └── queued (a retryable failure) ──▶ queued

A fact that the table does not name for a status is ignored: that is how the first final event in a job's partition
stays the truth, however many follow. `progress` and `output` tell of the attempt that runs and move no status. Of a
job that was deleted nothing is left but a tombstone, which no fact moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from forebay.core.attempts import Attempt, after_event
from forebay.core.event import BatchLine, EventKind, JobError, JobEvent, JobMetrics, JobRequest, Remains
from forebay.core.payload import Payload
from forebay.core.webhook import WebhookTarget


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self in FINAL


MAX_LIFE_S = 86_400.0
RETAIN_S = 86_400.0
"""Of a job whose request does not say, such as one that came by a record of another producer."""

DEADLINE = JobError(code="deadline", message="it has not come to an end in the time that any job has")

FINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED})

_FROM_QUEUED = {
    EventKind.STARTED: JobStatus.RUNNING,
    EventKind.QUEUED: JobStatus.QUEUED,
    EventKind.SUCCEEDED: JobStatus.SUCCEEDED,
    EventKind.FAILED: JobStatus.FAILED,
    EventKind.CANCELED: JobStatus.CANCELED,
    EventKind.EXPIRED: JobStatus.EXPIRED,
}
TRANSITIONS: Mapping[JobStatus, Mapping[EventKind, JobStatus]] = {
    JobStatus.QUEUED: _FROM_QUEUED,
    JobStatus.RUNNING: {
        **{kind: to for kind, to in _FROM_QUEUED.items() if kind is not EventKind.EXPIRED},
        EventKind.PROGRESS: JobStatus.RUNNING,
        EventKind.OUTPUT: JobStatus.RUNNING,
    },
    **{final: {} for final in FINAL},
}


class Interim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the attempt that runs has said of itself: how far it is (0 to 1) with the number of that word, and how many
    chunks of output it has emitted. `worker` ran it: should another run the same one, nobody listens to that."""

    worker: str = ""
    progress: float | None = None
    sequence: int = 0
    chunks: int = 0


class Job(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The visible state of a job. With `model` "" it is a stub: events came before the request they speak of.

    `attempts` is the number in the deciding event, or in the newest attempt begun while none has decided. `interim` is
    there while one runs that has said something. `history` tells of the newest attempts, the oldest first: while the
    job is under way, and for ever once it has failed. `retry_of` is the job that this one does again; `place` is where
    its request stands in the log, "" if nobody knows. `due_at`: while it waits for its next attempt, which does not
    begin before then. `webhooks`: who is told of it.

    The times from `expires_at` on are the log's: until when it must have started, must have ended, and when it ended.
    With `deleted_at` it is a tombstone: of the rest it has only what those need who count jobs.
    """

    tenant: str
    id: str
    status: JobStatus = JobStatus.QUEUED
    model: str = ""
    version: str = ""
    lane: str = "normal"
    attempts: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    metrics: JobMetrics | None = None
    output: Payload | None = None
    error: JobError | None = None
    metadata: Mapping[str, Any] = {}
    durability: str = ""
    interim: Interim | None = None
    line: BatchLine | None = None
    retry_of: str = ""
    place: str = ""
    history: tuple[Attempt, ...] = ()
    due_at: float | None = None
    expires_at: float | None = None
    dies_at: float | None = None
    retain_s: float = RETAIN_S
    ended_at: float | None = None
    deleted_at: float | None = None
    webhooks: tuple[WebhookTarget, ...] = ()

    @property
    def over_at(self) -> float | None:
        """When time alone will bring it further: it expires, has lived too long, is retained no longer. None for a
        stub. Of a tombstone it is when the job was deleted, until a store is told that all of it is gone."""
        if self.deleted_at is not None:
            return self.deleted_at
        if self.dies_at is None:
            return None
        if self.ended_at is not None:
            return self.ended_at + self.retain_s
        return self.expires_at if self._expires else self.dies_at

    @property
    def over_as(self) -> EventKind:
        """What time alone will bring about, of a job that has an `over_at` and is no tombstone."""
        if self.status.final:
            return EventKind.DELETED
        return EventKind.EXPIRED if self._expires else EventKind.FAILED

    @property
    def _expires(self) -> bool:
        """Whether it expires before it has lived too long: only what was never started does."""
        if self.expires_at is None or self.dies_at is None or self.attempts > 0:
            return False
        return self.expires_at <= self.dies_at


def apply(job: Job | None, fact: JobRequest | JobEvent) -> Job:
    """The job after `fact`. Pure; repeating a fact changes nothing; the request may come before or after any event.

    Events of one job must come in the order of their log. Returns `job` itself when the fact changes nothing.
    """
    if job is None:
        job = Job(tenant=fact.tenant, id=fact.job_id)
    if job.deleted_at is not None:
        return job
    if isinstance(fact, JobRequest):
        return _accept(job, fact)
    if fact.not_before is not None and fact.taken_at < fact.not_before:
        return job
    if fact.kind is EventKind.DELETED:  # said of final jobs only; what made this one final may be gone from the log
        return _tombstone(job, fact)
    to = TRANSITIONS[job.status].get(fact.kind)
    if to is None or _is_stale(job, fact):
        return job
    if to.final:
        return replace(
            job,
            status=to,
            attempts=fact.attempt or job.attempts,
            version=fact.model_version or job.version,
            finished_at=fact.at,
            ended_at=fact.taken_at,
            metrics=fact.metrics,
            output=fact.output,
            error=fact.error,
            interim=None,
            history=after_event(job.history, fact),
            due_at=None,
        )
    if fact.kind.interim:
        return _hear(job, fact)
    if fact.kind is EventKind.STARTED:
        return replace(
            job,
            status=to,
            attempts=fact.attempt,
            version=fact.model_version or job.version,
            started_at=fact.at if job.started_at is None else job.started_at,
            interim=None,
            history=after_event(job.history, fact),
            due_at=None,
        )
    return replace(
        job,
        status=to,
        attempts=fact.attempt,
        error=fact.error,
        interim=None,
        history=after_event(job.history, fact),
        due_at=fact.due_at,
    )


def _hear(job: Job, event: JobEvent) -> Job:
    """Each word counts once, and chunks in their order: whoever publishes may repeat what is not known to be there."""
    known = job.interim or Interim(worker=event.worker)
    if event.worker != known.worker:
        return job
    if event.kind is EventKind.PROGRESS and event.sequence > known.sequence:
        return replace(job, interim=replace(known, progress=event.progress, sequence=event.sequence))
    if event.kind is EventKind.OUTPUT and event.sequence == known.chunks and event.chunks:
        return replace(job, interim=replace(known, chunks=known.chunks + event.chunks))
    return job


def _accept(job: Job, request: JobRequest) -> Job:
    expires_at = None if request.start_within_s is None else request.taken_at + request.start_within_s
    dies_at = request.taken_at + (MAX_LIFE_S if request.max_life_s is None else request.max_life_s)
    if job.model:
        # The same request may stand in the log twice, after a delay or an unknown outcome: whichever is read first,
        # the place and the clocks are the same in the end.
        place = request.place if "" < request.place < job.place else job.place
        if job.dies_at is not None and job.dies_at <= dies_at:
            expires_at, dies_at = job.expires_at, job.dies_at
        if (place, expires_at, dies_at) == (job.place, job.expires_at, job.dies_at):
            return job
        return replace(job, place=place, expires_at=expires_at, dies_at=dies_at)
    return replace(
        job,
        model=request.model,
        version=job.version or request.version,
        lane=request.lane,
        created_at=request.accepted_at,
        metadata=request.metadata,
        durability=request.durability,
        line=request.line,
        retry_of=request.retry_of,
        place=request.place,
        expires_at=expires_at,
        dies_at=dies_at,
        retain_s=RETAIN_S if request.retain_s is None else request.retain_s,
        webhooks=request.webhooks,
    )


def deletion(job: Job, at: float, not_before: float | None = None) -> JobEvent:
    """The word that this final job is deleted."""
    assert job.finished_at is not None, "only final jobs are deleted"
    remains = Remains(
        status=EventKind(job.status.value), created_at=job.created_at, finished_at=job.finished_at, line=job.line
    )
    return JobEvent(
        tenant=job.tenant, job_id=job.id, kind=EventKind.DELETED, at=at, remains=remains, not_before=not_before
    )


def _tombstone(job: Job, event: JobEvent) -> Job:
    """From the event alone: the facts before it may be gone from the log."""
    tombstone = Job(tenant=job.tenant, id=job.id, deleted_at=event.taken_at)
    if event.remains is None or not event.remains.status.final:
        return tombstone
    return replace(
        tombstone,
        status=JobStatus(event.remains.status.value),
        created_at=event.remains.created_at,
        finished_at=event.remains.finished_at,
        line=event.remains.line,
    )


def _is_stale(job: Job, event: JobEvent) -> bool:
    """A non-final word about an attempt that is over, or an expiry of what has already been started."""
    if event.kind.interim:
        return event.attempt != job.attempts
    if event.kind is EventKind.STARTED:
        return event.attempt <= job.attempts
    if event.kind is EventKind.QUEUED:
        return event.attempt < job.attempts or job.status is not JobStatus.RUNNING
    return event.kind is EventKind.EXPIRED and job.attempts > 0
