"""A record of a producer that knows nothing of Forebay is a job, and every reader derives the same one."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from forebay.core import foreign
from forebay.core.clocks import ClockLimits
from forebay.core.errors import InvalidRequest
from forebay.core.foreign import ForeignClocks, ForeignRecord, foreign_job_id, media_type_of
from forebay.core.message import Channel, Message
from forebay.core.model import ModelLimits
from forebay.core.payload import Payload
from forebay.core.wire import decode_request

RECORD = ForeignRecord(
    tenant="acme",
    channel=Channel("sentiment", "low"),
    place="forebay.requests.sentiment.low/3/42@1764000000250",
    logged_at=1_764_000_000.25,
    headers={"ce_id": "order-7", "ce_source": "/shop"},
    value=b'{"text":"good"}',
)


NO_OTHERS = ForeignClocks()


def adopt(record: ForeignRecord, clocks: ForeignClocks = NO_OTHERS) -> Message:
    return foreign.adopt(record, clocks)


def with_headers(**headers: str) -> ForeignRecord:
    named = {key if key.startswith("ce_") else key.replace("_", "-"): text for key, text in headers.items()}
    return replace(RECORD, headers={**RECORD.headers, **named})


def test_a_bare_value_is_a_job_of_the_channel_accepted_when_it_was_logged() -> None:
    request = decode_request(adopt(replace(RECORD, headers={})))
    assert (request.tenant, request.model, request.lane) == ("acme", "sentiment", "low")
    assert request.accepted_at == RECORD.logged_at
    assert request.input == Payload(media_type="application/json", data=RECORD.value)
    assert request.durability == ""


def test_it_may_say_what_a_job_may_say() -> None:
    record = with_headers(
        forebay_version="2",
        forebay_parameters='{"top_k":3}',
        forebay_metadata='{"order":"7"}',
        forebay_start_within_s="1.5",
        forebay_run_timeout_s="30",
        content_type="text/plain; charset=utf-8",
    )
    request = decode_request(adopt(record))
    assert request.version == "2"
    assert request.parameters == {"top_k": 3}
    assert request.metadata == {"order": "7"}
    assert (request.start_within_s, request.run_timeout_s) == (1.5, 30.0)
    assert request.input.media_type == "text/plain; charset=utf-8"


SERVICE = ClockLimits(max_life_s=600.0, retain_s=300.0)
MODEL = ModelLimits(start_within_s=20.0, retain_s=120.0)


@pytest.mark.parametrize(
    ("clocks", "headers", "within_s", "retain_s", "life_s"),
    [
        (ForeignClocks(), {}, None, 86_400.0, 86_400.0),
        (ForeignClocks(service=SERVICE), {}, None, 300.0, 600.0),
        (ForeignClocks(service=SERVICE, models={"sentiment": MODEL}), {}, 20.0, 120.0, 600.0),
        (ForeignClocks(service=SERVICE, models={"other": MODEL}), {}, None, 300.0, 600.0),
        (ForeignClocks(models={"sentiment": MODEL}), {"forebay_start_within_s": "5"}, 5.0, 120.0, 86_400.0),
        (ForeignClocks(service=SERVICE), {"forebay_retain_s": "9", "forebay_max_life_s": "9"}, None, 300.0, 600.0),
    ],
)
def test_its_clocks_are_those_of_its_model_and_of_the_service(
    clocks: ForeignClocks, headers: dict[str, str], within_s: float | None, retain_s: float, life_s: float
) -> None:
    request = decode_request(adopt(with_headers(**headers), clocks))
    assert (request.start_within_s, request.retain_s, request.max_life_s) == (within_s, retain_s, life_s)


@pytest.mark.parametrize("at", [253_402_300_800.0, 4e15, 4e18])
def test_a_time_that_no_calendar_has_is_refused(at: float) -> None:
    with pytest.raises(InvalidRequest, match="years"):
        adopt(replace(RECORD, logged_at=at))


def test_its_trace_is_handed_on() -> None:
    assert adopt(with_headers(traceparent="00-1-2-01")).headers["traceparent"] == "00-1-2-01"


@pytest.mark.parametrize("name", ["forebay_tenant", "forebay_model", "forebay_lane", "ce_time", "ce_type"])
def test_it_cannot_say_whose_it_is_nor_when_it_came(name: str) -> None:
    assert adopt(replace(RECORD, headers={**RECORD.headers, name.replace("y_", "y-"): "other"})) == adopt(RECORD)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"forebay_parameters": "{"}, "a header is wrong"),
        ({"forebay_parameters": "[]"}, "a header is wrong"),
        ({"forebay_parameters": '{"a":' * 100_000}, "a header is wrong"),
        ({"forebay_start_within_s": "soon"}, "a header is wrong"),
        ({"forebay_run_timeout_s": "-1"}, "a header is wrong"),
        ({"forebay_run_timeout_s": "0.999"}, "1 s at least"),
        ({"forebay_blob": '{"name":"other/job/sha","size_bytes":1,"sha256":"00"}'}, "may refer to a blob"),
        ({"content_type": "application/cloudevents+json"}, "structured mode"),
        ({"ce_id": "order\n7"}, "ce_id holds a control character"),
        ({"ce_source": "/shop\x00"}, "ce_source holds a control character"),
    ],
)
def test_what_is_wrong_with_it_is_said(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        adopt(with_headers(**headers))


def test_its_id_has_the_shape_of_ours_and_another_version() -> None:
    job_id = foreign_job_id(RECORD)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9a-f]{16}", job_id)
    assert uuid.UUID(job_id[:36]).version == 8
    assert uuid.UUID(job_id[:36]).variant == uuid.RFC_4122


def test_its_id_is_the_same_in_every_release() -> None:
    assert foreign_job_id(RECORD) == "bfa0e5fd-8dc7-8a09-8e5c-a46a840966a2-743d7cfd10eee93b"
    assert foreign_job_id(replace(RECORD, headers={})) == "5dd428f4-ea0e-870a-b9a9-ee6f69eecda8-dab3e4625d9f721d"


def test_an_event_sent_twice_is_one_job() -> None:
    again = replace(RECORD, place="forebay.requests.sentiment.low/0/7@1764000009999", logged_at=1_764_000_009.999)
    assert foreign_job_id(again) == foreign_job_id(RECORD)


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "other"},
        {"channel": Channel("other", "low")},
        {"headers": {"ce_id": "order-8", "ce_source": "/shop"}},
        {"headers": {"ce_id": "order-7", "ce_source": "/shelf"}},
        {"value": b"other"},
    ],
)
def test_another_event_is_another_job(changes: dict[str, Any]) -> None:
    assert foreign_job_id(replace(RECORD, **changes)) != foreign_job_id(RECORD)


@pytest.mark.parametrize("headers", [{}, {"ce_id": "1"}, {"ce_source": "/shop"}, {"ce_id": "", "ce_source": ""}])
def test_records_that_name_no_event_are_a_job_each(headers: dict[str, str]) -> None:
    first = replace(RECORD, headers=headers)
    assert foreign_job_id(first) == foreign_job_id(first)
    assert foreign_job_id(first) != foreign_job_id(replace(first, place="forebay.requests.sentiment.low/3/43@1"))


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        (b'{"a":1}', "application/json"),
        (b"null", "application/json"),
        (b'"text"', "application/json"),
        ("schön".encode(), "text/plain"),
        (b"", "text/plain"),
        (b"\xff\xd8\xff\xe0", "application/octet-stream"),
        (b'{"a":"\xff"}', "application/octet-stream"),
        (b"[" * 100_000, "text/plain"),
    ],
)
def test_a_value_without_a_type_is_taken_for_what_it_looks_like(value: bytes, media_type: str) -> None:
    assert media_type_of(value) == media_type


attributes = st.text(st.characters(exclude_categories=["Cc", "Cs"]))


@given(value=st.binary(), source=attributes, event=attributes, place=st.text())
def test_any_value_is_adopted_and_keeps_its_bytes(value: bytes, source: str, event: str, place: str) -> None:
    record = replace(RECORD, value=value, headers={"ce_source": source, "ce_id": event}, place=place)
    assert decode_request(adopt(record)).input.data == value
