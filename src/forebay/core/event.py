"""A fact about a job: what became true, when, in which attempt, said by whom."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from forebay.core.payload import Payload
from forebay.core.webhook import WebhookTarget

COUNT_MOST = 2**31 - 1
Count = Annotated[int, Meta(ge=0, le=COUNT_MOST)]
"""Bounded, so that no store need refuse it."""


class EventKind(StrEnum):
    """The words of the event log, of server-sent events and of webhooks."""

    QUEUED = "queued"  # back in the queue after a retryable failure; the first `queued` is the request itself
    STARTED = "started"
    PROGRESS = "progress"  # how far the attempt is that runs
    OUTPUT = "output"  # chunks that it has emitted
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    DELETED = "deleted"  # of a job that is final: nothing but the memory that there was one is left of it

    @property
    def interim(self) -> bool:
        """What an attempt says of itself while it runs."""
        return self in (EventKind.PROGRESS, EventKind.OUTPUT)

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset({EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELED, EventKind.EXPIRED})


class JobError(Struct, frozen=True, kw_only=True):
    """Why a job failed, as its caller sees it. `code` is stable; `message` names no path and no secret of ours."""

    code: str
    message: str
    retryable: bool = False


class JobMetrics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Seconds and counts of the attempt that decided. `queue_s` runs from acceptance to the start of that attempt."""

    queue_s: float | None = None
    predict_s: float | None = None
    batch_size: Count | None = None


class BatchLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which line of which batch (core/job_batch.py) a job is. Lines count from 1; `custom_id` is the caller's name for
    it, "" for none."""

    batch_id: str
    number: Count
    custom_id: str = ""


class Remains(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a deleted job still: when it was accepted, how and when it ended, and which line of which batch
    it was, so that those who count jobs count it as before."""

    status: EventKind
    created_at: float
    finished_at: float
    line: BatchLine | None = None


class JobEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`attempt` counts from 1; it is 0 only for a final state reached without an attempt (`canceled`, `expired`).

    `sequence`, within the attempt: of `progress` its number, from 1; of `output` the number of its first chunk, from 0.
    The `output` of that kind is a JSON array, in one line, of so many `chunks`. `due_at`, of `queued`: not before then
    the next attempt begins.

    What time brings about has a `not_before`: it counts only if the log took it then or later, so that nobody's fast
    clock ends anything early. `logged_at` is when the log took it, by the log's own clock; 0.0 where that is not known.
    """

    tenant: str
    job_id: str
    kind: EventKind
    at: float
    attempt: int = 0
    worker: str = ""
    model_version: str = ""
    output: Payload | None = None
    error: JobError | None = None
    metrics: JobMetrics | None = None
    sequence: int = 0
    progress: float | None = None
    chunks: int = 0
    due_at: float | None = None
    remains: Remains | None = None
    not_before: float | None = None
    logged_at: float = 0.0

    @property
    def taken_at(self) -> float:
        """When the log took it; by the word of whoever sent it where the log does not say."""
        return self.logged_at or self.at


class JobRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as it was accepted: what travels on the `requests` channel and what every later fact refers to.

    `version` is "" for the model's default version. `start_within_s` and `run_timeout_s` are None for the model's own.
    `durability` is the class of the queue that took it, "" if whoever sent it did not say. `key` and `fingerprint` are
    those of its reservation (core/reservation.py), "" for a job that was submitted without a key. `line` is
    None for a job that came alone. `retry_of` is the job that this one does again, "" for any other. `place` is where
    it stands in the log (`EventLog.at`): known to whoever read it from there, and never sent.
    `webhooks`: who is told of it.
    `retain_s` and `max_life_s` are None only where whoever sent it did not say. `logged_at` is when the log took it, by
    the log's own clock, from which all of its clocks run; 0.0 where that is not known.
    """

    tenant: str
    job_id: str
    model: str
    accepted_at: float
    input: Payload
    version: str = ""
    lane: str = "normal"
    parameters: Mapping[str, Any] = {}
    metadata: Mapping[str, Any] = {}
    start_within_s: float | None = None
    run_timeout_s: float | None = None
    durability: str = ""
    key: str = ""
    fingerprint: str = ""
    line: BatchLine | None = None
    retry_of: str = ""
    place: str = ""
    retain_s: float | None = None
    max_life_s: float | None = None
    webhooks: tuple[WebhookTarget, ...] = ()
    logged_at: float = 0.0

    @property
    def taken_at(self) -> float:
        """When the log took it; by the word of whoever sent it where the log does not say."""
        return self.logged_at or self.accepted_at
