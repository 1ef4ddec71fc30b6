"""Requests and events to put through a port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from forebay.core.event import EventKind, JobError, JobEvent, JobMetrics, JobRequest
from forebay.core.fact import Fact
from forebay.core.message import Message
from forebay.core.payload import JSON, Payload
from forebay.core.wire import canonical_json, encode_request

TENANT = "default"
FactT = TypeVar("FactT", bound=Fact)
ACCEPTED_AT = 1_764_000_000.25


def job_id(number: int) -> str:
    """Of the length and in the order of real ids."""
    return f"0193a5b0-0000-7000-8000-{number:012d}-0123456789abcdef"


def request(
    number: int,
    *,
    tenant: str = TENANT,
    model: str = "sample",
    data: bytes = b'{"text":"hello"}',
    metadata: Mapping[str, Any] | None = None,
) -> JobRequest:
    """Higher numbers were accepted later."""
    return JobRequest(
        tenant=tenant,
        job_id=job_id(number),
        model=model,
        accepted_at=ACCEPTED_AT + number,
        input=Payload(media_type=JSON, data=data),
        metadata=metadata or {},
        durability="process",
    )


def message(number: int, *, data: bytes = b'{"text":"hello"}') -> Message:
    return encode_request(request(number, data=data))


def as_sent(fact: FactT) -> FactT:
    """What was read of the log, without where it stands there, and since when."""
    if isinstance(fact, JobRequest):
        return replace(fact, place="", logged_at=0.0)
    return replace(fact, logged_at=0.0) if isinstance(fact, JobEvent) else fact


def event(number: int, kind: EventKind, *, attempt: int = 1, tenant: str = TENANT, at_s: float = 1.0) -> JobEvent:
    """`at_s` seconds after the job was accepted, without output."""
    return JobEvent(
        tenant=tenant, job_id=job_id(number), kind=kind, at=ACCEPTED_AT + number + at_s, attempt=attempt, worker="w-1"
    )


def succeeded(number: int, output: Payload, *, attempt: int = 1, tenant: str = TENANT) -> JobEvent:
    return JobEvent(
        tenant=tenant,
        job_id=job_id(number),
        kind=EventKind.SUCCEEDED,
        at=ACCEPTED_AT + number + 2.0,
        attempt=attempt,
        worker="w-1",
        model_version="3",
        output=output,
        metrics=JobMetrics(queue_s=0.25, predict_s=0.125, batch_size=4),
    )


def emitted(number: int, *chunks: Any, first: int = 0, attempt: int = 1, tenant: str = TENANT) -> JobEvent:
    """Chunks of output, of which that is the number of the first."""
    return replace(
        event(number, EventKind.OUTPUT, attempt=attempt, tenant=tenant),
        sequence=first,
        chunks=len(chunks),
        output=Payload(media_type=JSON, data=canonical_json(chunks)),
    )


def progressed(number: int, fraction: float, *, sequence: int, attempt: int = 1) -> JobEvent:
    return replace(event(number, EventKind.PROGRESS, attempt=attempt), sequence=sequence, progress=fraction)


def failed(number: int, *, attempt: int = 1, tenant: str = TENANT) -> JobEvent:
    return JobEvent(
        tenant=tenant,
        job_id=job_id(number),
        kind=EventKind.FAILED,
        at=ACCEPTED_AT + number + 2.0,
        attempt=attempt,
        error=JobError(code="model_failed", message="no face found", retryable=False),
    )
