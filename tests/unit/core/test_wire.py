"""Requests and events as messages, and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from msgspec.structs import replace

from forebay.core.delivery import MESSAGE_CHARS, DeliveryEvent, DeliveryEventKind, DeliveryStatus
from forebay.core.errors import InvalidRequest
from forebay.core.event import BatchLine, EventKind, JobError, JobEvent, JobMetrics, JobRequest, Remains
from forebay.core.fact import Fact
from forebay.core.job_batch import BatchEvent, BatchEventKind, RejectedLine
from forebay.core.message import Message
from forebay.core.payload import JSON, BlobRef, Payload
from forebay.core.webhook import TARGETS_MOST, URL_MOST_CHARS, WebhookEvent, WebhookTarget
from forebay.core.wire import canonical_json, decode, decode_event, decode_request, encode_event, encode_request

GOLDEN = Path(__file__).parents[1] / "golden"

JOB = "019ab697-e756-7d82-8a63-86d2c96e819b-033c9fb296809265"
BATCH = "019ab697-e756-7d82-8a63-86d2c96e819b-0123456789abcdef"
DELIVERY = "msg_0123456789abcdef0123456789abcdef"
BLOB = BlobRef(name=f"acme/{JOB}/{'ab' * 32}", size_bytes=4_000_000, sha256="ab" * 32)
AT = 1_764_000_000.250001

RELEASED: dict[str, Fact] = {
    "request-least.v1": JobRequest(
        tenant="default",
        job_id=JOB,
        model="sentiment",
        accepted_at=AT,
        input=Payload(media_type="text/plain", data="naïve ✓".encode()),
    ),
    "request-most.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="efficientnet",
        version="2",
        lane="high",
        accepted_at=AT,
        input=Payload(media_type=JSON, data=b'{"image":"aGk="}'),
        parameters={"top_k": 3},
        metadata={"order": "é", "nested": [1, 2.5, None, True]},
        start_within_s=30.0,
        run_timeout_s=1.5,
    ),
    "request-durable.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="sentiment",
        accepted_at=AT,
        input=Payload(media_type="text/plain", data=b"good"),
        durability="flushed",
    ),
    "request-keyed.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="sentiment",
        accepted_at=AT,
        input=Payload(media_type="text/plain", data=b"good"),
        key="cd" * 32,
        fingerprint="ef" * 32,
    ),
    "request-line.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="sentiment",
        accepted_at=AT,
        input=Payload(media_type="text/plain", data=b"good"),
        line=BatchLine(batch_id=BATCH, number=17, custom_id="row é"),
    ),
    "request-retry.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="sentiment",
        accepted_at=AT,
        input=Payload(media_type="text/plain", data=b"good"),
        key="cd" * 32,
        fingerprint="ef" * 32,
        retry_of="019ab697-0000-7d82-8a63-86d2c96e819b-0123456789abcdef",
    ),
    "request-clocks.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="sentiment",
        accepted_at=AT,
        input=Payload(media_type="text/plain", data=b"good"),
        start_within_s=30.0,
        retain_s=3600.0,
        max_life_s=86_400.0,
    ),
    "event-expired-due.v1": JobEvent(tenant="acme", job_id=JOB, kind=EventKind.EXPIRED, at=AT, not_before=AT - 0.5),
    "event-deleted.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.DELETED,
        at=AT,
        remains=Remains(
            status=EventKind.SUCCEEDED,
            created_at=AT - 90.25,
            finished_at=AT - 60.5,
            line=BatchLine(batch_id=BATCH, number=17, custom_id="row é"),
        ),
    ),
    "request-blob.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="efficientnet",
        accepted_at=AT,
        input=Payload(media_type="image/jpeg", blob=BLOB),
    ),
    "event-started.v1": JobEvent(
        tenant="acme", job_id=JOB, kind=EventKind.STARTED, at=AT, attempt=1, worker="host-7", model_version="2"
    ),
    "event-queued.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.QUEUED,
        at=AT,
        attempt=1,
        worker="host-7",
        error=JobError(code="worker_lost", message="the worker died", retryable=True),
    ),
    "event-progress.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.PROGRESS,
        at=AT,
        attempt=1,
        worker="host-7",
        model_version="2",
        sequence=3,
        progress=0.4,
    ),
    "event-output.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.OUTPUT,
        at=AT,
        attempt=1,
        worker="host-7",
        model_version="2",
        sequence=2,
        chunks=3,
        output=Payload(media_type=JSON, data='["naïve",{"base64":"AAE="},null]'.encode()),
    ),
    "event-succeeded.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.SUCCEEDED,
        at=AT,
        attempt=2,
        worker="host-7",
        model_version="2",
        output=Payload(media_type=JSON, data=b'[{"label":"tabby","score":0.75}]'),
        metrics=JobMetrics(queue_s=0.5, predict_s=0.0125, batch_size=8),
    ),
    "event-succeeded-blob.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.SUCCEEDED,
        at=AT,
        attempt=1,
        output=Payload(media_type="application/octet-stream", blob=BLOB),
    ),
    "event-failed.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.FAILED,
        at=AT,
        attempt=3,
        error=JobError(code="model_failed", message="no face\nfound"),
        metrics=JobMetrics(queue_s=0.5),
    ),
    "event-queued-due.v1": JobEvent(
        tenant="acme",
        job_id=JOB,
        kind=EventKind.QUEUED,
        at=AT,
        attempt=1,
        worker="host-7",
        error=JobError(code="not_now", message="not now", retryable=True),
        due_at=AT + 5.5,
    ),
    "event-canceled.v1": JobEvent(tenant="acme", job_id=JOB, kind=EventKind.CANCELED, at=AT),
    "event-expired.v1": JobEvent(tenant="acme", job_id=JOB, kind=EventKind.EXPIRED, at=AT),
    "batch-opened.v1": BatchEvent(
        tenant="acme",
        batch_id=BATCH,
        kind=BatchEventKind.OPENED,
        at=AT,
        model="sentiment",
        key="cd" * 32,
        fingerprint="ef" * 32,
    ),
    "batch-lines.v1": BatchEvent(
        tenant="acme",
        batch_id=BATCH,
        kind=BatchEventKind.LINES,
        at=AT,
        key="cd" * 32,
        fingerprint="ef" * 32,
        lines=400,
        accepted=398,
        rejected=(
            RejectedLine(line=7, code="malformed_json", message="the line is not JSON"),
            RejectedLine(line=9, code="invalid_request", message="é", pointer="/input", custom_id="row 9"),
        ),
    ),
    "batch-sealed.v1": BatchEvent(tenant="acme", batch_id=BATCH, kind=BatchEventKind.SEALED, at=AT, lines=400),
    "batch-canceled.v1": BatchEvent(tenant="acme", batch_id=BATCH, kind=BatchEventKind.CANCELED, at=AT),
    "request-webhooks.v1": JobRequest(
        tenant="acme",
        job_id=JOB,
        model="sentiment",
        accepted_at=AT,
        input=Payload(media_type="text/plain", data=b"good"),
        webhooks=(
            WebhookTarget(endpoint="ep_0123456789abcdef", events=tuple(WebhookEvent)),
            WebhookTarget(url="https://hooks.example/é?job=1"),
        ),
    ),
    "batch-opened-webhooks.v1": BatchEvent(
        tenant="acme",
        batch_id=BATCH,
        kind=BatchEventKind.OPENED,
        at=AT,
        model="sentiment",
        webhooks=(WebhookTarget(url="https://hooks.example/batches"),),
    ),
    "delivery-tried.v1": DeliveryEvent(
        tenant="acme",
        job_id=JOB,
        delivery_id=DELIVERY,
        kind=DeliveryEventKind.TRIED,
        at=AT,
        number=3,
        status=503,
        latency_s=0.25,
        code="status",
        message="naïve",
        next_at=AT + 300.5,
    ),
    "delivery-delivered.v1": DeliveryEvent(
        tenant="acme",
        job_id=JOB,
        delivery_id=DELIVERY,
        kind=DeliveryEventKind.TRIED,
        at=AT,
        number=4,
        status=204,
        latency_s=0.125,
        outcome=DeliveryStatus.DELIVERED,
    ),
    "delivery-asked.v1": DeliveryEvent(
        tenant="acme", job_id=JOB, delivery_id=DELIVERY, kind=DeliveryEventKind.ASKED, at=AT
    ),
    "delivery-parked.v1": DeliveryEvent(
        tenant="acme",
        job_id=JOB,
        delivery_id=DELIVERY,
        kind=DeliveryEventKind.PARKED,
        at=AT,
        code="endpoint_removed",
    ),
}
"""What stands in the golden files. Nothing here ever changes; a new version gets new entries and new files."""


def to_file(message: Message) -> bytes:
    """One line for each field and header, an empty line, then the value."""
    lines = [f"tenant: {message.tenant}", f"job_id: {message.job_id}"]
    lines += [f"{name}: {text}" for name, text in message.headers.items()]
    return "\n".join([*lines, "", ""]).encode() + message.value


def from_file(data: bytes) -> Message:
    head, value = data.split(b"\n\n", 1)
    lines = dict(line.split(": ", 1) for line in head.decode().split("\n"))
    return Message(tenant=lines.pop("tenant"), job_id=lines.pop("job_id"), headers=lines, value=value)


def encode(fact: Fact) -> Message:
    return encode_request(fact) if isinstance(fact, JobRequest) else encode_event(fact)


def test_there_is_a_fact_for_each_golden_file() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.is_file()} == set(RELEASED)


@pytest.mark.parametrize("name", RELEASED)
def test_what_a_released_version_wrote_is_read_as_it_was_meant(name: str) -> None:
    assert decode(from_file((GOLDEN / name).read_bytes())) == RELEASED[name]


@pytest.mark.parametrize("name", RELEASED)
def test_the_same_fact_is_still_written_as_the_same_bytes(name: str) -> None:
    assert to_file(encode(RELEASED[name])) == (GOLDEN / name).read_bytes()


# ----------------------------------------------------------------------------------------------------- round trips

texts = st.text(max_size=20)
names = st.text(min_size=1, max_size=20)
times = st.integers(0, 4_102_444_800 * 10**6).map(lambda us: us / 1e6)
seconds = st.floats(0, 1e9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, json_values, max_size=3)
blobs = st.builds(BlobRef, name=names, size_bytes=st.integers(0, 2**40), sha256=names)
payloads = st.builds(Payload, media_type=names, data=st.binary(max_size=50)) | st.builds(
    Payload, media_type=names, blob=blobs
)
events_of_webhooks = st.lists(st.sampled_from(WebhookEvent), unique=True).map(tuple)
targets = st.builds(WebhookTarget, endpoint=names, events=events_of_webhooks) | st.builds(
    WebhookTarget, url=names, events=events_of_webhooks
)
any_requests = st.builds(
    JobRequest,
    tenant=names,
    job_id=names,
    model=names,
    version=texts,
    lane=names,
    accepted_at=times,
    input=payloads,
    parameters=objects,
    metadata=objects,
    durability=st.sampled_from(["", "process", "flushed"]),
    start_within_s=st.none() | seconds,
    run_timeout_s=st.none() | seconds,
    webhooks=st.lists(targets, max_size=3).map(tuple),
)
metrics = st.builds(
    JobMetrics,
    queue_s=st.none() | seconds,
    predict_s=st.none() | seconds,
    batch_size=st.none() | st.integers(0, 1000),
)
settled_events = st.builds(
    JobEvent,
    tenant=names,
    job_id=names,
    kind=st.sampled_from([kind for kind in EventKind if not kind.interim]),
    at=times,
    attempt=st.integers(0, 2**31 - 1),
    worker=texts,
    model_version=texts,
    output=st.none() | payloads,
    error=st.none() | st.builds(JobError, code=texts, message=texts, retryable=st.booleans()),
    metrics=st.none() | metrics,
    due_at=st.none() | times,
)
progress_events = st.builds(
    JobEvent,
    tenant=names,
    job_id=names,
    kind=st.just(EventKind.PROGRESS),
    at=times,
    attempt=st.integers(1, 2**31 - 1),
    sequence=st.integers(1, 2**31 - 1),
    progress=st.floats(0, 1),
)
output_events = st.builds(
    lambda chunks, **facts: JobEvent(
        chunks=len(chunks), output=Payload(media_type=JSON, data=canonical_json(chunks)), **facts
    ),
    chunks=st.lists(json_values, max_size=3),
    tenant=names,
    job_id=names,
    kind=st.just(EventKind.OUTPUT),
    at=times,
    attempt=st.integers(1, 2**31 - 1),
    sequence=st.integers(0, 2**31 - 1),
)
delivery_events = st.builds(
    DeliveryEvent,
    tenant=names,
    job_id=names,
    delivery_id=names,
    kind=st.sampled_from(DeliveryEventKind),
    at=times,
    number=st.integers(0, 2**31 - 1),
    status=st.none() | st.integers(0, 999),
    latency_s=seconds,
    code=texts,
    message=texts,
    outcome=st.sampled_from(DeliveryStatus),
    next_at=times,
)
any_events = settled_events | progress_events | output_events


def own(tenant: str, job_id: str, payload: Payload | None) -> Payload | None:
    """The same, with its blob among those of the job."""
    if payload is None or payload.blob is None:
        return payload
    name = f"{tenant}/{job_id}/{payload.blob.name}"
    return structs.replace(payload, blob=structs.replace(payload.blob, name=name))


requests = any_requests.map(lambda one: structs.replace(one, input=own(one.tenant, one.job_id, one.input)))
events = any_events.map(lambda one: structs.replace(one, output=own(one.tenant, one.job_id, one.output)))


@given(requests)
def test_a_request_comes_back(request: JobRequest) -> None:
    message = encode_request(request)
    assert decode_request(message) == request
    assert decode(message) == request


@given(events)
def test_an_event_comes_back(event: JobEvent) -> None:
    message = encode_event(event)
    assert decode_event(message) == event
    assert decode(message) == event


@given(delivery_events)
def test_an_event_of_a_delivery_comes_back(event: DeliveryEvent) -> None:
    assert decode(encode_event(event)) == event


@given(requests | events | delivery_events)
def test_every_header_is_text_and_its_name_is_ours_or_of_cloudevents(
    fact: JobRequest | JobEvent | DeliveryEvent,
) -> None:
    for name, text in encode(fact).headers.items():
        assert re.fullmatch(r"ce_[a-z]+|content-type|forebay-[a-z-]+", name)
        assert isinstance(text, str)


@given(json_values)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    backwards = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert canonical_json(backwards) == canonical_json(value)


def test_a_large_input_travels_by_reference_only() -> None:
    assert encode(RELEASED["request-blob.v1"]).value == b""


# ----------------------------------------------------------------------------------------------- what is not read

NEEDED = ["forebay-wire", "ce_type", "ce_time"]


@pytest.mark.parametrize("version", ["", "0", "2", "1 ", "v1", None])
@pytest.mark.parametrize("name", ["request-most.v1", "event-succeeded.v1"])
def test_an_unknown_version_is_refused(name: str, version: str | None) -> None:
    message = encode(RELEASED[name])
    headers = {key: text for key, text in message.headers.items() if key != "forebay-wire"}
    if version is not None:
        headers["forebay-wire"] = version
    with pytest.raises(InvalidRequest, match="forebay-wire"):
        decode(replace(message, headers=headers))


@pytest.mark.parametrize(
    ("name", "missing"),
    [("request-most.v1", header) for header in [*NEEDED, "forebay-model"]]
    + [("event-succeeded.v1", header) for header in [*NEEDED, "forebay-attempt"]]
    + [("event-progress.v1", header) for header in ["forebay-progress", "forebay-sequence"]],
)
def test_a_missing_header_is_named(name: str, missing: str) -> None:
    message = encode(RELEASED[name])
    headers = {key: text for key, text in message.headers.items() if key != missing}
    read = decode_request if name.startswith("request") else decode_event
    with pytest.raises(InvalidRequest, match=missing):
        read(replace(message, headers=headers))


def remains_of(line: int) -> str:
    return json({"status": "expired", "created_at": AT, "finished_at": AT, "line": {"batch_id": BATCH, "number": line}})


def blob_of(size_bytes: int) -> str:
    return json({**structs.asdict(BLOB), "size_bytes": size_bytes})


def json(value: Any) -> str:
    return canonical_json(value).decode()


NO_TARGETS = [
    "",
    "[",
    "{}",
    "[1]",
    "[{}]",
    '[{"url":"https://a.example","endpoint":"ep_1"}]',
    '[{"url":"https://a.example","events":["exploded"]}]',
    '[{"url":"https://a.example","events":"completed"}]',
    json([{"url": "u" * (URL_MOST_CHARS + 1)}]),
    json([{"endpoint": "e" * 65}]),
    json([{"url": "https://a.example"}] * (TARGETS_MOST + 1)),
    "[" * 100_000,
]
"""What no header says that tells who is told."""


@pytest.mark.parametrize(
    ("name", "header", "text"),
    [
        ("request-most.v1", "ce_time", "yesterday"),
        ("request-most.v1", "ce_time", "2025-11-24T16:00:00"),
        ("request-most.v1", "forebay-metadata", "[1]"),
        ("request-most.v1", "forebay-metadata", "{"),
        ("request-most.v1", "forebay-metadata", '{"a":' + "[" * 100 + "]" * 100 + "}"),
        ("request-most.v1", "forebay-parameters", '{"a":' * 101 + "3" + "}" * 101),
        ("request-most.v1", "forebay-parameters", "3"),
        ("request-most.v1", "forebay-start-within-s", "soon"),
        ("request-most.v1", "forebay-start-within-s", "nan"),
        ("request-most.v1", "forebay-run-timeout-s", "inf"),
        ("request-most.v1", "forebay-run-timeout-s", "-1"),
        ("request-blob.v1", "forebay-blob", '{"name":"x"}'),
        ("request-blob.v1", "forebay-blob", blob_of(2**63)),
        ("request-blob.v1", "forebay-blob", blob_of(-1)),
        ("request-line.v1", "forebay-line", "first"),
        ("batch-lines.v1", "forebay-lines", "-1"),
        ("batch-lines.v1", "ce_type", "io.forebay.batch.exploded.v1"),
        ("event-succeeded.v1", "ce_type", "io.forebay.job.exploded.v1"),
        ("event-succeeded.v1", "forebay-attempt", "two"),
        ("event-succeeded.v1", "forebay-attempt", "-1"),
        ("event-succeeded.v1", "forebay-attempt", "99999999999999999999"),
        ("event-succeeded.v1", "forebay-metrics", "{]"),
        ("event-succeeded.v1", "forebay-metrics", '{"batch_size":2147483648}'),
        ("event-succeeded.v1", "forebay-metrics", '{"batch_size":-1}'),
        ("event-failed.v1", "forebay-error", '{"code":3}'),
        ("event-deleted.v1", "forebay-remains", remains_of(2**31)),
        ("event-deleted.v1", "forebay-remains", remains_of(-1)),
        ("event-queued-due.v1", "forebay-due-at", "soon"),
        ("event-progress.v1", "forebay-progress", "1.5"),
        ("event-progress.v1", "forebay-progress", "nan"),
        ("event-progress.v1", "forebay-sequence", "-1"),
        ("event-output.v1", "forebay-sequence", "first"),
        ("event-output.v1", "content-type", "text/plain"),
        *(
            (name, "forebay-webhooks", text)
            for name in ("request-webhooks.v1", "batch-opened-webhooks.v1")
            for text in NO_TARGETS
        ),
        ("delivery-tried.v1", "ce_type", "io.forebay.delivery.exploded.v1"),
        ("delivery-tried.v1", "ce_type", "io.forebay.delivery.asked.v1"),
    ],
)
def test_a_wrong_header_is_refused(name: str, header: str, text: str) -> None:
    message = encode(RELEASED[name])
    with pytest.raises(InvalidRequest):
        decode(replace(message, headers={**message.headers, header: text}))


@pytest.mark.parametrize(
    "changed",
    [
        {"tenant": "other"},
        {"job_id": BATCH},
        {"kind": "exploded"},
        {"number": -1},
        {"number": 2**31},
        {"number": "3"},
        {"status": 1000},
        {"message": "m" * (MESSAGE_CHARS + 1)},
        {"outcome": "lost"},
        {"next_at": None},
        {"delivery_id": None},
    ],
)
def test_a_wrong_event_of_a_delivery_is_refused(changed: dict[str, Any]) -> None:
    message = encode(RELEASED["delivery-tried.v1"])
    said = {**msgspec.json.decode(message.value), **changed}
    with pytest.raises(InvalidRequest):
        decode(replace(message, value=canonical_json(said)))


def test_the_greatest_numbers_are_read() -> None:
    most = {
        "event-deleted.v1": ("forebay-remains", remains_of(2**31 - 1)),
        "request-blob.v1": ("forebay-blob", blob_of(2**63 - 1)),
    }
    for name, (header, text) in most.items():
        message = encode(RELEASED[name])
        message = replace(message, headers={**message.headers, header: text})
        assert encode(decode(message)).headers[header] != encode(RELEASED[name]).headers[header]


@pytest.mark.parametrize("value", [b"", b"{}", b"[1,]", b"[1\n]", b'["\xff"]', b"[" * 100_000])
def test_chunks_that_are_no_json_on_one_line_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(replace(encode(RELEASED["event-output.v1"]), value=value))


@pytest.mark.parametrize("line", [-1, 2**31])
def test_a_rejected_line_with_a_number_that_no_store_takes_is_refused(line: int) -> None:
    message = encode(RELEASED["batch-lines.v1"])
    assert b'"line":7,' in message.value
    with pytest.raises(InvalidRequest):
        decode(replace(message, value=message.value.replace(b'"line":7,', b'"line":%d,' % line)))


def test_what_is_as_deep_as_allowed_is_read() -> None:
    message = encode(RELEASED["request-most.v1"])
    deep = '{"a":' * 100 + "3" + "}" * 100
    request = decode_request(replace(message, headers={**message.headers, "forebay-metadata": deep}))
    assert canonical_json(request.metadata).decode() == deep


@given(st.dictionaries(st.sampled_from([*NEEDED, "forebay-attempt", "content-type", "forebay-blob"]), texts))
def test_no_headers_make_the_reader_raise_anything_else(headers: dict[str, str]) -> None:
    message = Message(tenant="t", job_id="j", headers={"forebay-wire": "1", **headers}, value=b"")
    for read in (decode, decode_request, decode_event):
        with pytest.raises(InvalidRequest):
            read(message)


@pytest.mark.parametrize("name", ["acme/another-job/0", "other/{job}/0", "acme/{job}", "../../etc/passwd"])
def test_a_blob_of_another_job_is_not_believed(name: str) -> None:
    blob = structs.replace(BLOB, name=name.format(job=JOB))
    released = RELEASED["request-blob.v1"]
    assert isinstance(released, JobRequest)
    request = structs.replace(released, input=Payload(media_type=JSON, blob=blob))
    with pytest.raises(InvalidRequest, match="is not of this job"):
        decode_request(encode_request(request))
