"""The batch object and the lines of its results: what every answer about a batch says, in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from forebay.api.listing import cursor_of
from forebay.core.event import JobError
from forebay.core.job import Job
from forebay.core.job_batch import JobBatch, RejectedLine
from forebay.core.payload import JSON
from forebay.core.times import to_rfc3339
from forebay.ports.job_batches import BatchPage

_encode = msgspec.json.Encoder().encode


class Counts(Struct, frozen=True):
    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    canceled: int
    expired: int
    rejected: int


class Urls(Struct, frozen=True):
    self: str
    results: str
    cancel: str


class Mistake(Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    pointer: str = ""


class Rejected(Struct, frozen=True):
    line: int
    custom_id: str | UnsetType
    error: Mistake


class BatchObject(Struct, frozen=True, kw_only=True):
    id: str
    model: str | UnsetType = UNSET
    status: str
    counts: Counts
    rejected: list[Rejected] | UnsetType = UNSET
    created_at: str
    finished_at: str | UnsetType = UNSET
    urls: Urls


class LineObject(Struct, frozen=True, kw_only=True):
    """One line of the results. `media_type` and `output_url` stand for an output that is no JSON."""

    line: int
    custom_id: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    status: str
    output: Raw | UnsetType = UNSET
    media_type: str | UnsetType = UNSET
    output_url: str | UnsetType = UNSET
    error: JobError | Mistake | UnsetType = UNSET


_GONE = Mistake("job_gone", "the job was deleted, and its output with it")
LOST = Mistake("blob_damaged", "the job's output is lost or damaged; the service's log has the reason")


def write_batch(batch: JobBatch) -> bytes:
    return _encode(_object(batch))


def write_upload(batch: JobBatch, rejected: Sequence[RejectedLine]) -> bytes:
    """With the first of the lines that became no job."""
    return _encode(_object(batch, [Rejected(one.line, one.custom_id or UNSET, _mistake(one)) for one in rejected]))


def write_batches(page: BatchPage) -> bytes:
    found: dict[str, Any] = {"batches": [_object(batch) for batch in page.batches]}
    if page.next is not None:
        found["next_cursor"] = cursor_of(page.next)
    return _encode(found)


def write_line(one: Job | RejectedLine, output: bytes = b"", mistake: Mistake | None = None) -> bytes:
    """One line of text. `output` is the job's, if it is JSON; `mistake` says why it is not there."""
    if isinstance(one, RejectedLine):
        return _line(
            LineObject(line=one.line, custom_id=one.custom_id or UNSET, status="rejected", error=_mistake(one))
        )
    assert one.line is not None, "a job of a batch"
    media_type = one.output.media_type if one.output is not None else JSON
    return _line(
        LineObject(
            line=one.line.number,
            custom_id=one.line.custom_id or UNSET,
            id=one.id,
            status=one.status.value,
            output=Raw(output if b"\n" not in output else msgspec.json.format(output, indent=-1)) if output else UNSET,
            media_type=media_type if media_type != JSON else UNSET,
            output_url=f"/v1/jobs/{one.id}/result" if media_type != JSON else UNSET,
            error=_GONE if one.deleted_at is not None else mistake or one.error or UNSET,
        )
    )


def _line(line: LineObject) -> bytes:
    return _encode(line) + b"\n"


def _mistake(one: RejectedLine) -> Mistake:
    return Mistake(one.code, one.message, one.pointer)


def _object(batch: JobBatch, rejected: list[Rejected] | None = None) -> BatchObject:
    path = f"/v1/batches/{batch.id}"
    finished_at = batch.finished_at
    return BatchObject(
        id=batch.id,
        model=batch.model or UNSET,
        status=batch.status.value,
        counts=Counts(
            total=batch.total,
            queued=batch.waiting,
            running=batch.running,
            succeeded=batch.succeeded,
            failed=batch.failed,
            canceled=batch.canceled,
            expired=batch.expired,
            rejected=batch.rejected,
        ),
        rejected=rejected or UNSET,
        created_at=to_rfc3339(batch.created_at),
        finished_at=UNSET if finished_at is None else to_rfc3339(finished_at),
        urls=Urls(path, f"{path}/results", f"{path}/cancel"),
    )
