"""Many jobs that came as the lines of one file, and what became of all of them together. Pure.

Facts about a batch stand in the event log in their order: `opened`, `lines` for one part of the file after the other,
`sealed` when its end is known. Its jobs are counted by their own facts, which may come before or after these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from forebay.core.event import Count
from forebay.core.ids import derived_id
from forebay.core.job import Job, JobStatus
from forebay.core.webhook import WebhookTarget

LINES_MOST = 100_000
"""Lines of one batch."""

Key = tuple[str, str]
"""Tenant and id of a batch."""


def line_job_id(tenant: str, batch_id: str, line: int) -> str:
    """That of the line's job, whoever publishes it and however often. From the UUID in the batch's id alone, since the
    rest depends on the secret that signed it."""
    return derived_id(("forebay.batch.v1", tenant, batch_id[:36], str(line)))


class BatchEventKind(StrEnum):
    OPENED = "opened"
    LINES = "lines"  # these lines are settled: each is a job in the log, or rejected here
    SEALED = "sealed"  # there are no more lines
    CANCELED = "canceled"  # nobody wants what is not final yet


class RejectedLine(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line that became no job, and why. `pointer` leads to the place in the line, "" for all of it."""

    line: Count
    code: str
    message: str
    pointer: str = ""
    custom_id: str = ""


class BatchEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact about a batch. `lines`: up to which line of the file it speaks; `accepted`: how many lines of this part
    became jobs, the others being `rejected` or blank. Of an opened batch `model` is the default of its lines, and
    `webhooks` say who is told when it is completed. `key` and `fingerprint` are those of its reservation
    (core/reservation.py)."""

    tenant: str
    batch_id: str
    kind: BatchEventKind
    at: float
    key: str = ""
    fingerprint: str = ""
    model: str = ""
    lines: int = 0
    accepted: int = 0
    rejected: tuple[RejectedLine, ...] = ()
    webhooks: tuple[WebhookTarget, ...] = ()


class BatchStatus(StrEnum):
    INCOMPLETE = "incomplete"  # its last line has not come: it is being uploaded, or that broke off
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELING = "canceling"
    CANCELED = "canceled"


class JobBatch(Struct, frozen=True):
    """The visible state of a batch. With `created_at` 0.0 it is a stub: its jobs came before the fact that opened it.

    `lines`: so many of the file are settled, blank ones too; `accepted` and `rejected` of them as jobs and as mistakes.
    The other counts are those of its jobs that are visible, by status. `last_at`: the newest time of anything final in
    it, and of its seal.
    """

    tenant: str
    id: str
    model: str = ""
    created_at: float = 0.0
    sealed_at: float | None = None
    canceled_at: float | None = None
    last_at: float = 0.0
    lines: int = 0
    accepted: int = 0
    rejected: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    expired: int = 0
    webhooks: tuple[WebhookTarget, ...] = ()

    @property
    def total(self) -> int:
        """Lines that hold something."""
        return self.accepted + self.rejected

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.canceled + self.expired

    @property
    def waiting(self) -> int:
        """Jobs that are queued, those included that are not visible yet."""
        return max(self.queued, self.accepted - self.running - self.ended)

    @property
    def finished_at(self) -> float | None:
        """When the last of its jobs became final. Once known it never changes: no line is added, none leaves a final
        state."""
        return self.last_at if self.sealed_at is not None and self.ended >= self.accepted else None

    @property
    def status(self) -> BatchStatus:
        """Whoever cancels what had finished before, and was not visible yet, has come too late."""
        finished_at = self.finished_at
        if self.canceled_at is not None and (finished_at is None or self.canceled_at <= finished_at):
            return BatchStatus.CANCELING if finished_at is None else BatchStatus.CANCELED
        if self.sealed_at is None:
            return BatchStatus.INCOMPLETE
        return BatchStatus.RUNNING if finished_at is None else BatchStatus.COMPLETED


class BatchChanges:
    """What a part of the log means for one batch."""

    def __init__(self) -> None:
        self._events: list[BatchEvent] = []
        self._counts: dict[str, int] = {}
        self._last_at = 0.0

    def hear(self, event: BatchEvent) -> None:
        self._events.append(event)

    def count(self, old: Job | None, job: Job) -> None:
        """One of its jobs, as it was and as it is."""
        if old is not None and old.line is not None:
            self._counts[old.status] = self._counts.get(old.status, 0) - 1
        self._counts[job.status] = self._counts.get(job.status, 0) + 1
        if job.finished_at is not None:
            self._last_at = max(self._last_at, job.finished_at)

    def apply(self, batch: JobBatch) -> tuple[JobBatch, list[RejectedLine]]:
        """The batch after them, and the lines that were rejected in them. Repeating an event changes nothing."""
        counted = {status.value: getattr(batch, status) + more for status, more in self._items()}
        batch = replace(batch, last_at=max(batch.last_at, self._last_at), **counted)
        rejected: list[RejectedLine] = []
        for event in self._events:
            batch = _apply(batch, event, rejected)
        return batch, rejected

    def _items(self) -> Iterable[tuple[JobStatus, int]]:
        return ((JobStatus(status), more) for status, more in self._counts.items())


def changes_of(events: Iterable[BatchEvent], changed: Iterable[tuple[Job | None, Job]]) -> Mapping[Key, BatchChanges]:
    """By batch, in the order of the keys. `changed`: the jobs of the same part of the log, as they were and as they
    are."""
    found: dict[Key, BatchChanges] = {}
    for event in events:
        found.setdefault((event.tenant, event.batch_id), BatchChanges()).hear(event)
    for old, job in changed:
        if job.line is not None:
            found.setdefault((job.tenant, job.line.batch_id), BatchChanges()).count(old, job)
    return {key: found[key] for key in sorted(found)}


def _apply(batch: JobBatch, event: BatchEvent, rejected: list[RejectedLine]) -> JobBatch:
    match event.kind:
        case BatchEventKind.OPENED if not batch.created_at:
            return replace(batch, created_at=event.at, model=event.model, webhooks=event.webhooks)
        case BatchEventKind.LINES if event.lines > batch.lines and batch.sealed_at is None:
            rejected += event.rejected
            return replace(
                batch,
                lines=event.lines,
                # No more than there are lines: else what somebody forged would outgrow the numbers of a store, and stop
                # whoever projects it.
                accepted=min(batch.accepted + event.accepted, event.lines),
                rejected=batch.rejected + len(event.rejected),
            )
        case BatchEventKind.SEALED if batch.sealed_at is None:
            return replace(batch, sealed_at=event.at, last_at=max(batch.last_at, event.at))
        case BatchEventKind.CANCELED if batch.canceled_at is None:
            return replace(batch, canceled_at=event.at)
    return batch
