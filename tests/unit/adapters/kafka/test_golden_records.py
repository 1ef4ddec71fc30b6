"""Records as released versions wrote them, byte by byte: the contract of docs/kafka-records.md."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from tests.unit.adapters.kafka.golden import AT_MS, GOLDEN, delivered, read, to_file
from tests.unit.core.test_wire import RELEASED

from forebay.adapters.kafka.attempts import attempt_headers, delay_headers, due, known_attempts, without_ours
from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.entries import Entry
from forebay.adapters.kafka.names import Names
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record, from_record, headers_of, to_record
from forebay.adapters.kafka.tracker import Mark
from forebay.core.errors import InvalidRequest
from forebay.core.event import JobError, JobRequest
from forebay.core.foreign import ForeignClocks, ForeignRecord, foreign_job_id
from forebay.core.message import Channel, Message
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
        retain_s=86_400.0,
        max_life_s=86_400.0,
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
        retain_s=86_400.0,
        max_life_s=86_400.0,
    ),
}
"""What those records of other producers mean, read from partition 3, offset 42, logged at AT_MS."""


CHANNEL = Channel("sentiment", "normal")
RETRIES: dict[str, Callable[[], Record]] = {"retry-waiting.v1": lambda: delayed(), "retry-due.v1": lambda: due_again()}
DEAD_LETTERS = {
    "dlq-failed.v1": ("request-least.v1", JobError(code="model_failed", message="no face found"), 3),
    "dlq-malformed.v1": ("foreign-malformed.v1", JobError(code="malformed_record", message="a header is wrong: …"), 0),
}
"""By name of the dead letter: that of the record that was refused, why, and after how many attempts."""


def message_in(record: confluent_kafka.Message) -> Message:
    return from_record(record, headers_of(record), NAMES, ForeignClocks())


def written(name: str) -> Record:
    """The record that this version writes for the fact of that name."""
    fact = RELEASED[name]
    if isinstance(fact, JobRequest):
        return to_record(NAMES.requests_topic(Channel(fact.model, fact.lane)), encode_request(fact))
    return to_record(NAMES.events_topic, encode_event(fact))


def delayed() -> Record:
    """A job after its second attempt, the first of which died, that waits for half a minute."""
    message = without_ours(message_in(delivered(read("request-least.v1"))))
    return to_record(f"{NAMES.retry_prefix}30s", message, more=delay_headers(Mark(2, 1), CHANNEL, AT_MS / 1000 + 30))


def due_again() -> Record:
    message = without_ours(message_in(delivered(read("retry-waiting.v1"))))
    return to_record(NAMES.requests_topic(CHANNEL), message, more=attempt_headers(Mark(2, 1)))


async def dead_letter(record: Record, error: JobError, attempt: int) -> Record:
    """What is written to the dead letters for a record at offset 42 of partition 3."""
    publisher = Recorder()
    letters = DeadLetters(publisher, NAMES.dlq_topic, NAMES.worker_group(CHANNEL), publish_wait_s=1.0)
    given = delivered(record)
    entry = Entry(place=(record.topic, 3), offset=42, record=given, headers=headers_of(given))
    await letters.write(entry, error, attempt)
    (written,) = publisher.records
    return written


class Recorder(Publisher):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def publish(self, records: Sequence[Record], *, wait_s: float) -> None:
        self.records += records


def test_there_is_a_record_for_every_released_fact() -> None:
    known = {*RELEASED, *FOREIGN, "foreign-malformed.v1", *RETRIES, *DEAD_LETTERS}
    assert {path.name for path in GOLDEN.iterdir()} == known


@pytest.mark.parametrize("name", RELEASED)
def test_the_same_fact_is_still_written_as_the_same_record(name: str) -> None:
    assert to_file(written(name)) == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", RELEASED)
def test_what_a_released_version_wrote_is_read_as_it_was_meant(name: str) -> None:
    assert decode(message_in(delivered(read(name)))) == RELEASED[name]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_record_of_another_producer_is_the_same_job_in_every_release(name: str) -> None:
    assert decode_request(message_in(delivered(read(name)))) == FOREIGN[name]


@pytest.mark.parametrize("name", RETRIES)
def test_a_retry_is_still_written_as_the_same_record(name: str) -> None:
    assert to_file(RETRIES[name]()) == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", RETRIES)
def test_a_retry_is_still_the_same_job_with_its_attempts(name: str) -> None:
    message = message_in(delivered(read(name)))
    assert known_attempts(message.headers) == Mark(2, 1)
    assert decode_request(without_ours(message)) == RELEASED["request-least.v1"]


def test_a_retry_says_where_it_goes_and_when() -> None:
    headers = message_in(delivered(read("retry-waiting.v1"))).headers
    assert due(headers) == (CHANNEL, AT_MS / 1000 + 30)


@pytest.mark.parametrize("name", DEAD_LETTERS)
async def test_a_dead_letter_is_still_written_as_the_same_record(name: str) -> None:
    refused, error, attempt = DEAD_LETTERS[name]
    assert to_file(await dead_letter(read(refused), error, attempt)) == (GOLDEN / name).read_bytes()


def test_a_malformed_record_is_refused_with_the_code_of_its_dead_letter() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        message_in(delivered(read("foreign-malformed.v1")))
    assert refusal.value.code == dict(read("dlq-malformed.v1").headers)["forebay-error-code"].decode()


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
