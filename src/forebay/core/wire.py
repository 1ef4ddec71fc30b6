"""Requests and events as messages, and back. Golden files in `tests/unit/golden/` hold each released version.

Binary-mode CloudEvents (Kafka protocol binding 1.0.2, section 3.2): attributes are headers named `ce_*`, the data's
media type is `content-type`, the value is the data itself. What is ours begins with `forebay-`.
A reader accepts every version it knows and raises InvalidRequest for the rest, so that one bad record stops nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from forebay.core.delivery import DeliveryEvent, DeliveryEventKind, DeliveryStatus
from forebay.core.errors import InvalidRequest
from forebay.core.event import COUNT_MOST, BatchLine, EventKind, JobError, JobEvent, JobMetrics, JobRequest, Remains
from forebay.core.fact import Event, Fact
from forebay.core.job_batch import BatchEvent, BatchEventKind, RejectedLine
from forebay.core.message import Message
from forebay.core.nesting import MAX_DEPTH, is_deeper
from forebay.core.payload import JSON, BlobRef, Payload
from forebay.core.times import from_rfc3339, to_rfc3339
from forebay.core.webhook import WebhookTarget, decode_targets, encode_targets

WIRE_VERSION = "1"
REQUEST_TYPE = "io.forebay.job.requested.v1"
EVENT_TYPE_PREFIX = "io.forebay.job."
BATCH_TYPE_PREFIX = "io.forebay.batch."
DELIVERY_TYPE_PREFIX = "io.forebay.delivery."
EVENT_TYPE_SUFFIX = ".v1"
DELETED_TYPE = f"{EVENT_TYPE_PREFIX}{EventKind.DELETED.value}{EVENT_TYPE_SUFFIX}"

_encode = msgspec.json.Encoder().encode
_canonical = msgspec.json.Encoder(order="deterministic").encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_blob = msgspec.json.Decoder(BlobRef).decode
_error = msgspec.json.Decoder(JobError).decode
_metrics = msgspec.json.Decoder(JobMetrics).decode
_remains = msgspec.json.Decoder(Remains).decode
_delivery = msgspec.json.Decoder(DeliveryEvent).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_rejected = msgspec.json.Decoder(tuple[RejectedLine, ...]).decode


def canonical_json(value: Any) -> bytes:
    """UTF-8, no spaces, keys sorted: the same value is always the same bytes."""
    return _canonical(value)


def encode_request(request: JobRequest) -> Message:
    """The message that carries `request`. Its value is the input's bytes, or empty when they lie in the blob store."""
    headers = _common(request.tenant, request.accepted_at, REQUEST_TYPE, "/forebay/api")
    headers["ce_id"] = request.job_id
    headers["ce_subject"] = request.model
    headers["forebay-model"] = request.model
    headers["forebay-lane"] = request.lane
    if request.version:
        headers["forebay-version"] = request.version
    if request.parameters:
        headers["forebay-parameters"] = _encode(request.parameters).decode()
    if request.metadata:
        headers["forebay-metadata"] = _encode(request.metadata).decode()
    if request.start_within_s is not None:
        headers["forebay-start-within-s"] = repr(request.start_within_s)
    if request.run_timeout_s is not None:
        headers["forebay-run-timeout-s"] = repr(request.run_timeout_s)
    if request.retain_s is not None:
        headers["forebay-retain-s"] = repr(request.retain_s)
    if request.max_life_s is not None:
        headers["forebay-max-life-s"] = repr(request.max_life_s)
    if request.durability:
        headers["forebay-durability"] = request.durability
    if request.key:
        headers["forebay-key"] = request.key
        headers["forebay-fingerprint"] = request.fingerprint
    if request.line is not None:
        headers["forebay-batch"] = request.line.batch_id
        headers["forebay-line"] = str(request.line.number)
        if request.line.custom_id:
            headers["forebay-custom-id"] = request.line.custom_id
    if request.retry_of:
        headers["forebay-retry-of"] = request.retry_of
    if request.webhooks:
        headers["forebay-webhooks"] = encode_targets(request.webhooks).decode()
    return _with_payload(request.tenant, request.job_id, headers, request.input)


def decode_request(message: Message, place: str = "", logged_at: float = 0.0) -> JobRequest:
    """The inverse. `place`: where the message stands in the log, which took it at `logged_at`. Raises InvalidRequest
    naming the header that is missing or wrong."""
    headers = message.headers
    with _Typed(headers):
        if headers["ce_type"] != REQUEST_TYPE:
            raise ValueError(f"ce_type {headers['ce_type']!r} is not {REQUEST_TYPE!r}")
        return JobRequest(
            tenant=message.tenant,
            job_id=message.job_id,
            model=headers["forebay-model"],
            version=headers.get("forebay-version", ""),
            lane=headers.get("forebay-lane", "normal"),
            accepted_at=from_rfc3339(headers["ce_time"]),
            input=_payload(message),
            parameters=_object(headers.get("forebay-parameters", "{}")),
            metadata=_object(headers.get("forebay-metadata", "{}")),
            start_within_s=_seconds(headers.get("forebay-start-within-s")),
            run_timeout_s=_seconds(headers.get("forebay-run-timeout-s")),
            durability=headers.get("forebay-durability", ""),
            key=headers.get("forebay-key", ""),
            fingerprint=headers.get("forebay-fingerprint", ""),
            line=_line(headers) if "forebay-batch" in headers else None,
            retry_of=headers.get("forebay-retry-of", ""),
            place=place,
            retain_s=_seconds(headers.get("forebay-retain-s")),
            max_life_s=_seconds(headers.get("forebay-max-life-s")),
            webhooks=_targets(headers),
            logged_at=logged_at,
        )


def encode_event(event: Event) -> Message:
    """The message that carries `event`. Its value is the output's bytes, or empty; of a batch the lines that were
    rejected; of a delivery what became of it."""
    if isinstance(event, BatchEvent):
        return _encode_batch_event(event)
    if isinstance(event, DeliveryEvent):
        return _encode_delivery_event(event)
    kind = f"{EVENT_TYPE_PREFIX}{event.kind.value}{EVENT_TYPE_SUFFIX}"
    headers = _common(event.tenant, event.at, kind, _source(event))
    headers["ce_id"] = f"{event.job_id}.{event.kind.value}.{event.attempt}"
    headers["forebay-attempt"] = str(event.attempt)
    if event.kind.interim:
        headers["ce_id"] += f".{event.sequence}"
        headers["forebay-sequence"] = str(event.sequence)
    if event.progress is not None:
        headers["forebay-progress"] = repr(event.progress)
    if event.remains is not None:
        headers["forebay-remains"] = _encode(event.remains).decode()
    if event.due_at is not None:
        headers["forebay-due-at"] = to_rfc3339(event.due_at)
    if event.not_before is not None:
        headers["forebay-not-before"] = to_rfc3339(event.not_before)
    if event.worker:
        headers["forebay-worker"] = event.worker
    if event.model_version:
        headers["forebay-version"] = event.model_version
    if event.error is not None:
        headers["forebay-error"] = _encode(event.error).decode()
    if event.metrics is not None:
        headers["forebay-metrics"] = _encode(event.metrics).decode()
    if event.output is None:
        return Message(tenant=event.tenant, job_id=event.job_id, headers=headers, value=b"")
    return _with_payload(event.tenant, event.job_id, headers, event.output)


def _encode_batch_event(event: BatchEvent) -> Message:
    """Addressed by the batch's id."""
    kind = f"{BATCH_TYPE_PREFIX}{event.kind.value}{EVENT_TYPE_SUFFIX}"
    headers = _common(event.tenant, event.at, kind, "/forebay/api")
    headers["ce_id"] = f"{event.batch_id}.{event.kind.value}.{event.lines}"
    headers["forebay-lines"] = str(event.lines)
    headers["forebay-accepted"] = str(event.accepted)
    if event.model:
        headers["forebay-model"] = event.model
    if event.key:
        headers["forebay-key"] = event.key
        headers["forebay-fingerprint"] = event.fingerprint
    if event.webhooks:
        headers["forebay-webhooks"] = encode_targets(event.webhooks).decode()
    headers["content-type"] = JSON
    return Message(tenant=event.tenant, job_id=event.batch_id, headers=headers, value=_encode(event.rejected))


def _decode_batch_event(message: Message) -> BatchEvent:
    headers = message.headers
    with _Typed(headers):
        return BatchEvent(
            tenant=message.tenant,
            batch_id=message.job_id,
            kind=BatchEventKind(headers["ce_type"].removeprefix(BATCH_TYPE_PREFIX).removesuffix(EVENT_TYPE_SUFFIX)),
            at=from_rfc3339(headers["ce_time"]),
            key=headers.get("forebay-key", ""),
            fingerprint=headers.get("forebay-fingerprint", ""),
            model=headers.get("forebay-model", ""),
            lines=_count(headers["forebay-lines"]),
            accepted=_count(headers["forebay-accepted"]),
            rejected=_rejected(message.value),
            webhooks=_targets(headers),
        )


def _encode_delivery_event(event: DeliveryEvent) -> Message:
    """Addressed by the id of the job or batch that the delivery tells of; the value is the event itself."""
    kind = f"{DELIVERY_TYPE_PREFIX}{event.kind.value}{EVENT_TYPE_SUFFIX}"
    said_by = "/forebay/api" if event.kind is DeliveryEventKind.ASKED else "/forebay/webhooks"
    headers = _common(event.tenant, event.at, kind, said_by)
    headers["ce_id"] = f"{event.delivery_id}.{event.kind.value}.{event.number or headers['ce_time']}"
    headers["content-type"] = JSON
    return Message(tenant=event.tenant, job_id=event.job_id, headers=headers, value=_encode(event))


def _decode_delivery_event(message: Message) -> DeliveryEvent:
    with _Typed(message.headers):
        event = _delivery(message.value)
        if (event.tenant, event.job_id) != (message.tenant, message.job_id):  # else it would move another's delivery
            raise ValueError("the event is of another job than its key")
        if message.headers["ce_type"] != f"{DELIVERY_TYPE_PREFIX}{event.kind.value}{EVENT_TYPE_SUFFIX}":
            raise ValueError("the event is of another kind than its header says")
        if event.kind is DeliveryEventKind.TRIED and event.outcome is DeliveryStatus.PENDING and event.next_at is None:
            raise ValueError("a try that is not the last tells when the next one is due")
        return event


def _source(event: JobEvent) -> str:
    """Who says it: without a worker it is the API that cancels and deletes, and the scheduler that says what is due."""
    if event.worker:
        return f"/forebay/worker/{event.worker}"
    asked = event.kind in (EventKind.CANCELED, EventKind.DELETED) and event.not_before is None
    return "/forebay/api" if asked else "/forebay/scheduler"


def decode_event(message: Message, logged_at: float = 0.0) -> JobEvent:
    """The inverse, of a job: of a message that the log took at `logged_at`. Raises InvalidRequest naming the header
    that is missing or wrong."""
    headers = message.headers
    with _Typed(headers):
        error, metrics = headers.get("forebay-error"), headers.get("forebay-metrics")
        kind = EventKind(headers["ce_type"].removeprefix(EVENT_TYPE_PREFIX).removesuffix(EVENT_TYPE_SUFFIX))
        not_before, remains = headers.get("forebay-not-before"), headers.get("forebay-remains")
        return JobEvent(
            tenant=message.tenant,
            job_id=message.job_id,
            kind=kind,
            at=from_rfc3339(headers["ce_time"]),
            attempt=_count(headers["forebay-attempt"]),
            worker=headers.get("forebay-worker", ""),
            model_version=headers.get("forebay-version", ""),
            output=_payload(message) if "content-type" in headers else None,
            error=None if error is None else _error(error),
            metrics=None if metrics is None else _metrics(metrics),
            sequence=_count(headers["forebay-sequence"]) if kind.interim else 0,
            progress=_fraction(headers["forebay-progress"]) if kind is EventKind.PROGRESS else None,
            chunks=_chunks(message) if kind is EventKind.OUTPUT else 0,
            due_at=from_rfc3339(headers["forebay-due-at"]) if "forebay-due-at" in headers else None,
            not_before=None if not_before is None else from_rfc3339(not_before),
            remains=None if remains is None else _remains(remains),
            logged_at=logged_at,
        )


def decode(message: Message, place: str = "", logged_at: float = 0.0) -> Fact:
    """Whatever the message carries, which stands at `place` in the log, that took it at `logged_at`."""
    if message.headers.get("ce_type") == REQUEST_TYPE:
        return decode_request(message, place, logged_at)
    return decode_any_event(message, logged_at)


def decode_any_event(message: Message, logged_at: float = 0.0) -> Event:
    """Of a job, a batch or a delivery."""
    kind = message.headers.get("ce_type", "")
    if kind.startswith(BATCH_TYPE_PREFIX):
        return _decode_batch_event(message)
    if kind.startswith(DELIVERY_TYPE_PREFIX):
        return _decode_delivery_event(message)
    return decode_event(message, logged_at)


def _common(tenant: str, at: float, kind: str, source: str) -> dict[str, str]:
    return {
        "ce_specversion": "1.0",
        "ce_type": kind,
        "ce_source": source,
        "ce_time": to_rfc3339(at),
        "forebay-wire": WIRE_VERSION,
        "forebay-tenant": tenant,
    }


def _with_payload(tenant: str, job_id: str, headers: dict[str, str], payload: Payload) -> Message:
    headers["content-type"] = payload.media_type
    if payload.blob is not None:
        headers["forebay-blob"] = _encode(payload.blob).decode()
    return Message(tenant=tenant, job_id=job_id, headers=headers, value=payload.data or b"")


def _payload(message: Message) -> Payload:
    media_type = message.headers.get("content-type", JSON)
    reference = message.headers.get("forebay-blob")
    if reference is not None:
        blob = _blob(reference)
        if not blob.name.startswith(f"{message.tenant}/{message.job_id}/"):  # else whoever may write reads all blobs
            raise ValueError(f"forebay-blob {blob.name!r} is not of this job")
        return Payload(media_type=media_type, blob=blob)
    return Payload(media_type=media_type, data=message.value)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{text!r} is no number of seconds")
    return seconds


def _line(headers: Mapping[str, str]) -> BatchLine:
    return BatchLine(
        batch_id=headers["forebay-batch"],
        number=_count(headers["forebay-line"]),
        custom_id=headers.get("forebay-custom-id", ""),
    )


def _targets(headers: Mapping[str, str]) -> tuple[WebhookTarget, ...]:
    said = headers.get("forebay-webhooks")
    return () if said is None else decode_targets(said)


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= COUNT_MOST:
        raise ValueError(f"{text!r} is no count")
    return count


def _fraction(text: str) -> float:
    fraction = float(text)
    if not 0 <= fraction <= 1:
        raise ValueError(f"{text!r} is no number from 0 to 1")
    return fraction


def _chunks(message: Message) -> int:
    """How many there are: whoever shows them relies on their being JSON, and on one line."""
    text = message.value.decode()
    if message.headers.get("content-type") != JSON or "\n" in text or "\r" in text:
        raise ValueError("chunks of output are no JSON array in one line")
    return len(_array(text))


def _object(text: str) -> dict[str, Any]:
    """Raises ValueError and what msgspec does. What is too deep could be read here and then not be written by a store:
    whoever cannot write it would read it for ever."""
    value = _decode_object(text)
    # Fewer brackets cannot be deeper: the usual header costs two scans.
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        raise ValueError(f"an object is nested deeper than {MAX_DEPTH} levels")
    return value


class _Typed:
    """Turns what can go wrong while reading headers into InvalidRequest."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._version = headers.get("forebay-wire")

    def __enter__(self) -> None:
        if self._version != WIRE_VERSION:
            raise InvalidRequest(f"forebay-wire is {self._version!r}; this version reads {WIRE_VERSION!r}")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError):
            raise InvalidRequest(f"the header {error.args[0]} is missing") from error
        if isinstance(error, (ValueError, msgspec.MsgspecError, RecursionError)):  # the last: JSON that is too deep
            raise InvalidRequest(f"a header is wrong: {error}") from error
