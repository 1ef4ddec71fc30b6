"""Records as released versions wrote them, byte by byte: the contract of docs/kafka-records.md."""

from __future__ import annotations

import hashlib
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.unit.adapters.kafka.golden import AT_MS, GOLDEN, delivered, read, to_file
from tests.unit.core.test_wire import RELEASED

from forebay.adapters.kafka.names import Names
from forebay.adapters.kafka.records import Record, from_record, to_record
from forebay.core.event import JobRequest
from forebay.core.foreign import ForeignRecord, foreign_job_id
from forebay.core.message import Channel
from forebay.core.payload import JSON, Payload
from forebay.core.wire import decode, decode_request, encode_event, encode_request

NAMES = Names()
PAGE = (Path(__file__).parents[4] / "docs" / "kafka-records.md").read_text()

FOREIGN: dict[str, JobRequest] = {
    "foreign-bare.v1": JobRequest(
        tenant="default",
        job_id="467e653d-01c6-8afa-9a86-67e52ef7b4af-37f9b56728bfc137",
        model="sentiment",
        lane="normal",
        accepted_at=AT_MS / 1000,
        input=Payload(media_type="text/plain", data="naïve ✓".encode()),
    ),
    "foreign-most.v1": JobRequest(
        tenant="default",
        job_id="d951a55b-4ebc-8663-a043-57751cea6384-6d1185d4a8748d1e",
        model="efficientnet",
        version="2",
        lane="high",
        accepted_at=AT_MS / 1000,
        input=Payload(media_type=JSON, data=b'{"image":"aGk="}'),
        parameters={"top_k": 3},
        metadata={"order": "é"},
        start_within_s=30.0,
        run_timeout_s=1.5,
    ),
}
"""What those records of other producers mean, read from partition 3, offset 42, logged at AT_MS."""


def written(name: str) -> Record:
    """The record that this version writes for the fact of that name."""
    fact = RELEASED[name]
    if isinstance(fact, JobRequest):
        return to_record(NAMES.requests_topic(Channel(fact.model, fact.lane)), encode_request(fact))
    return to_record(NAMES.events_topic, encode_event(fact))


def test_there_is_a_record_for_every_released_fact() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {*RELEASED, *FOREIGN}


@pytest.mark.parametrize("name", RELEASED)
def test_the_same_fact_is_still_written_as_the_same_record(name: str) -> None:
    assert to_file(written(name)) == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", RELEASED)
def test_what_a_released_version_wrote_is_read_as_it_was_meant(name: str) -> None:
    assert decode(from_record(delivered(read(name)), NAMES)) == RELEASED[name]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_record_of_another_producer_is_the_same_job_in_every_release(name: str) -> None:
    assert decode_request(from_record(delivered(read(name)), NAMES)) == FOREIGN[name]


def test_the_page_names_every_header_that_a_record_carries() -> None:
    carried = {header for path in GOLDEN.iterdir() for header, _ in read(path.name).headers}
    named = set(re.findall(r"`([a-z_-]+)`", PAGE))
    assert carried <= named


def test_the_function_of_the_page_computes_the_id() -> None:
    (function,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scope: dict[str, Any] = {"hashlib": hashlib, "uuid": uuid}
    exec(function, scope)  # the page's own code, as a reader would paste it
    record = ForeignRecord(
        tenant="default",
        channel=Channel("text_classification", "normal"),
        place="",
        logged_at=0.0,
        headers={"ce_source": "/shop", "ce_id": "order-7"},
        value="µ".encode(),
    )
    computed = scope["job_id"]("default", "text_classification", "/shop", "order-7", "µ".encode())
    assert computed == foreign_job_id(record)
    (example,) = re.findall(r"UUID \(RFC 9562.*?`([0-9a-f-]{53})`", PAGE, re.DOTALL)
    assert example == scope["job_id"]("default", "text_classification", "/shop", "order-7", b"hello")
    assert hashlib.sha256(b"hello").hexdigest()[:10] in PAGE
