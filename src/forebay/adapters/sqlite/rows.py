"""Messages and jobs as rows, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from forebay.core.attempts import Attempt
from forebay.core.errors import InvalidRequest
from forebay.core.event import BatchLine, JobError, JobMetrics
from forebay.core.job import Interim, Job, JobStatus
from forebay.core.message import Message
from forebay.core.partials import Key, Partial
from forebay.core.payload import BlobRef, Payload
from forebay.core.webhook import WebhookTarget, decode_targets, encode_targets

_encode = msgspec.json.Encoder().encode
_headers = msgspec.json.Decoder(dict[str, str]).decode
_metrics = msgspec.json.Decoder(JobMetrics).decode
_error = msgspec.json.Decoder(JobError).decode
_interim = msgspec.json.Decoder(Interim).decode
_history = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_metadata = msgspec.json.Decoder(dict[str, Any]).decode

LOG_COLUMNS = "tenant, job_id, headers, value, logged_at"
JOB_COLUMNS = (
    "tenant, id, status, model, version, lane, attempts, created_at, started_at, finished_at, metrics, error, "
    "metadata, durability, interim, batch, line, custom_id, retry_of, place, history, "
    "expires_at, dies_at, retain_s, ended_at, deleted_at, over_at, due_at, webhooks"
)
RESULT_COLUMNS = "tenant, id, media_type, data, blob_name, blob_size_bytes, blob_sha256"
PARTIAL_COLUMNS = "tenant, id, attempt, last, first, chunks"

LogRow = tuple[str, str, bytes, bytes, float]


def to_log(message: Message, logged_at: float) -> LogRow:
    return message.tenant, message.job_id, _encode(message.headers), message.value, logged_at


def from_log(tenant: str, job_id: str, headers: bytes, value: bytes) -> Message:
    """Raises InvalidRequest for headers that are no JSON object of strings."""
    try:
        return Message(tenant=tenant, job_id=job_id, headers=_headers(headers), value=value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise InvalidRequest(f"the headers are no JSON object of strings: {exc}") from exc


def to_job_row(job: Job) -> tuple[Any, ...]:
    return (
        job.tenant,
        job.id,
        job.status.value,
        job.model,
        job.version,
        job.lane,
        job.attempts,
        job.created_at,
        job.started_at,
        job.finished_at,
        None if job.metrics is None else _encode(job.metrics),
        None if job.error is None else _encode(job.error),
        _encode(job.metadata) if job.metadata else None,
        job.durability,
        None if job.interim is None else _encode(job.interim),
        *to_line_columns(job.line),
        job.retry_of,
        job.place,
        _encode(job.history) if job.history else None,
        job.expires_at,
        job.dies_at,
        job.retain_s,
        job.ended_at,
        job.deleted_at,
        job.over_at,
        job.due_at,
        to_targets(job.webhooks),
    )


def to_targets(webhooks: Sequence[WebhookTarget]) -> bytes | None:
    return encode_targets(webhooks) if webhooks else None


def from_targets(column: bytes | None) -> tuple[WebhookTarget, ...]:
    return () if column is None else decode_targets(column)


def to_line_columns(line: BatchLine | None) -> tuple[str, int, str]:
    return ("", 0, "") if line is None else (line.batch_id, line.number, line.custom_id)


def from_job_row(row: tuple[Any, ...], output: Payload | None = None) -> Job:
    """`row` begins with JOB_COLUMNS; what follows is left to the caller."""
    tenant, job_id, status, model, version, lane, attempts, created, started, finished, *rest = row
    metrics, error, metadata, durability, interim, batch_id, number, custom_id, retry_of, place, history, *times = rest
    expires_at, dies_at, retain_s, ended_at, deleted_at, _, due_at, webhooks = times
    return Job(
        tenant=tenant,
        id=job_id,
        status=JobStatus(status),
        model=model,
        version=version,
        lane=lane,
        attempts=attempts,
        created_at=created,
        started_at=started,
        finished_at=finished,
        metrics=None if metrics is None else _metrics(metrics),
        error=None if error is None else _error(error),
        metadata={} if metadata is None else _metadata(metadata),
        durability=durability,
        line=BatchLine(batch_id=batch_id, number=number, custom_id=custom_id) if batch_id else None,
        retry_of=retry_of,
        place=place,
        history=() if history is None else _history(history),
        expires_at=expires_at,
        dies_at=dies_at,
        retain_s=retain_s,
        ended_at=ended_at,
        deleted_at=deleted_at,
        output=output,
        interim=None if interim is None else _interim(interim),
        due_at=due_at,
        webhooks=from_targets(webhooks),
    )


def to_result_row(job: Job, output: Payload) -> tuple[Any, ...]:
    blob = output.blob
    if blob is None:
        return job.tenant, job.id, output.media_type, output.data or b"", None, None, None
    return job.tenant, job.id, output.media_type, None, blob.name, blob.size_bytes, blob.sha256


def to_partial_row(key: Key, partial: Partial) -> tuple[Any, ...]:
    return *key, partial.attempt, partial.last, partial.first, partial.chunks


def from_result_columns(
    media_type: str | None, data: bytes | None, name: str | None, size_bytes: int | None, sha256: str | None
) -> Payload | None:
    """All are None for a job without a result."""
    if media_type is None:
        return None
    if name is None or size_bytes is None or sha256 is None:
        return Payload(media_type=media_type, data=data)
    return Payload(media_type=media_type, blob=BlobRef(name=name, size_bytes=size_bytes, sha256=sha256))
