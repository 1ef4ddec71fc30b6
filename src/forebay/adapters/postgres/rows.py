"""Jobs as rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from forebay.adapters.postgres.texts import from_text, to_text
from forebay.core.attempts import Attempt
from forebay.core.event import BatchLine, JobError, JobMetrics
from forebay.core.job import Interim, Job, JobStatus
from forebay.core.partials import Key, Partial
from forebay.core.payload import BlobRef, Payload
from forebay.core.webhook import WebhookTarget, decode_targets, encode_targets

_encode = msgspec.json.Encoder().encode
_metrics = msgspec.json.Decoder(JobMetrics).decode
_error = msgspec.json.Decoder(JobError).decode
_interim = msgspec.json.Decoder(Interim).decode
_history = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_metadata = msgspec.json.Decoder(dict[str, Any]).decode

JOB_TYPES = {
    "tenant": "text",
    "id": "text",
    "status": "text",
    "model": "text",
    "version": "text",
    "lane": "text",
    "attempts": "integer",
    "created_at": "double precision",
    "started_at": "double precision",
    "finished_at": "double precision",
    "metrics": "bytea",
    "error": "bytea",
    "metadata": "bytea",
    "durability": "text",
    "interim": "bytea",
    "batch": "text",
    "line": "integer",
    "custom_id": "text",
    "retry_of": "text",
    "place": "text",
    "history": "bytea",
    "expires_at": "double precision",
    "dies_at": "double precision",
    "retain_s": "double precision",
    "ended_at": "double precision",
    "deleted_at": "double precision",
    "over_at": "double precision",
    "due_at": "double precision",
    "webhooks": "bytea",
}
"""The columns of `jobs`, in the order of a row. JSON is kept as the bytes that it is: jsonb would change it."""

JOB_COLUMNS = tuple(JOB_TYPES)
PAYLOAD_COLUMNS = ("media_type", "data", "blob_name", "blob_size_bytes", "blob_sha256")
RESULT_COLUMNS = ("tenant", "id", *PAYLOAD_COLUMNS)

Row = tuple[Any, ...]


def to_job_row(job: Job) -> Row:
    return (
        to_text(job.tenant),
        to_text(job.id),
        job.status.value,
        to_text(job.model),
        to_text(job.version),
        to_text(job.lane),
        job.attempts,
        job.created_at,
        job.started_at,
        job.finished_at,
        None if job.metrics is None else _encode(job.metrics),
        None if job.error is None else _encode(job.error),
        _encode(job.metadata) if job.metadata else None,
        to_text(job.durability),
        None if job.interim is None else _encode(job.interim),
        *_line_columns(job.line),
        to_text(job.retry_of),
        to_text(job.place),
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


def _line_columns(line: BatchLine | None) -> tuple[str, int, str]:
    return ("", 0, "") if line is None else (to_text(line.batch_id), line.number, to_text(line.custom_id))


def from_job_row(row: Iterable[Any], output: Payload | None = None) -> Job:
    """`row` has JOB_COLUMNS."""
    tenant, job_id, status, model, version, lane, attempts, created, started, finished, *rest = row
    metrics, error, metadata, durability, interim, batch_id, number, custom_id, retry_of, place, history, *times = rest
    expires_at, dies_at, retain_s, ended_at, deleted_at, _, due_at, webhooks = times
    return Job(
        tenant=from_text(tenant),
        id=from_text(job_id),
        status=JobStatus(status),
        model=from_text(model),
        version=from_text(version),
        lane=from_text(lane),
        attempts=attempts,
        created_at=created,
        started_at=started,
        finished_at=finished,
        metrics=None if metrics is None else _metrics(metrics),
        error=None if error is None else _error(error),
        metadata={} if metadata is None else _metadata(metadata),
        durability=from_text(durability),
        line=BatchLine(batch_id=from_text(batch_id), number=number, custom_id=from_text(custom_id))
        if batch_id
        else None,
        retry_of=from_text(retry_of),
        place=from_text(place),
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


def to_result_row(job: Job, output: Payload) -> Row:
    key = to_text(job.tenant), to_text(job.id), to_text(output.media_type)
    blob = output.blob
    if blob is None:
        return *key, output.data or b"", None, None, None
    return *key, None, to_text(blob.name), blob.size_bytes, to_text(blob.sha256)


def to_partial_row(key: Key, partial: Partial) -> Row:
    return *map(to_text, key), partial.attempt, partial.last, partial.first, partial.chunks


def from_payload_columns(columns: Iterable[Any]) -> Payload | None:
    """`columns` has PAYLOAD_COLUMNS; all are None for a job without a result."""
    media_type, data, name, size_bytes, sha256 = columns
    if media_type is None:
        return None
    if name is None:
        return Payload(media_type=from_text(media_type), data=data)
    blob = BlobRef(name=from_text(name), size_bytes=size_bytes, sha256=from_text(sha256))
    return Payload(media_type=from_text(media_type), blob=blob)
