"""The job object: what every answer about a job says, and every webhook, in the same words.

`output` is in it if and only if the job succeeded and its output is JSON, wherever the bytes lie; outputs of other
media types are at `urls.result`. The stored bytes are put in as they are: what was stored is what is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from forebay.core.event import BatchLine, JobError, JobMetrics
from forebay.core.job import Job
from forebay.core.times import to_rfc3339


class Urls(Struct, frozen=True):
    self: str
    result: str
    events: str
    cancel: str


class OfBatch(Struct, frozen=True, omit_defaults=True):
    """Which line of which batch a job is."""

    id: str
    line: int
    custom_id: str = ""


class JobObject(Struct, frozen=True, kw_only=True):
    """The order of the members is the order in which they are read."""

    request_id: str | UnsetType = UNSET
    id: str
    model: str | UnsetType = UNSET
    version: str | UnsetType = UNSET
    status: str
    lane: str | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    created_at: str
    started_at: str | UnsetType = UNSET
    finished_at: str | UnsetType = UNSET
    progress: float | UnsetType = UNSET
    metrics: JobMetrics | UnsetType = UNSET
    output: Raw | UnsetType = UNSET
    error: JobError | UnsetType = UNSET
    retry_of: str | UnsetType = UNSET
    batch: OfBatch | UnsetType = UNSET
    metadata: Mapping[str, Any] | UnsetType = UNSET
    durability: str | UnsetType = UNSET
    urls: Urls


def job_object(job: Job, output: bytes | None = None, *, durability: str = "", simple: bool = False) -> JobObject:
    """`output` is the job's output if it is JSON. `durability` is said of a job that does not say its own."""
    return JobObject(
        request_id=job.id if simple else UNSET,
        id=job.id,
        model=job.model or UNSET,
        version=job.version or UNSET,
        status=job.status.value,
        lane=job.lane if job.model else UNSET,
        attempts=job.attempts,
        created_at=to_rfc3339(job.created_at),
        started_at=_time(job.started_at),
        finished_at=_time(job.finished_at),
        progress=_progress(job),
        metrics=UNSET if job.metrics is None else job.metrics,
        output=Raw(output) if output else UNSET,
        error=UNSET if job.error is None else job.error,
        retry_of=job.retry_of or UNSET,
        batch=of_batch(job.line),
        metadata=job.metadata or UNSET,
        durability=job.durability or durability or UNSET,
        urls=urls_of(job.id),
    )


def _time(at: float | None) -> str | UnsetType:
    return UNSET if at is None else to_rfc3339(at)


def _progress(job: Job) -> float | UnsetType:
    return UNSET if job.interim is None or job.interim.progress is None else job.interim.progress


def of_batch(line: BatchLine | None) -> OfBatch | UnsetType:
    return UNSET if line is None else OfBatch(line.batch_id, line.number, line.custom_id)


def urls_of(job_id: str) -> Urls:
    path = f"/v1/jobs/{job_id}"
    return Urls(path, f"{path}/result", f"{path}/events", f"{path}/cancel")
