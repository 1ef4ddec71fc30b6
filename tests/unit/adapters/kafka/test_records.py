"""Messages become records and come back the same; whatever cannot be read says why."""

from __future__ import annotations

from typing import cast

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.adapters.kafka.golden import AT_MS, delivered

from forebay.adapters.kafka.names import Names
from forebay.adapters.kafka.records import Record, from_record, headers_of, key_of, logged_at, split_key, to_record
from forebay.core.errors import InvalidRequest
from forebay.core.foreign import ForeignClocks
from forebay.core.message import Message
from forebay.core.wire import decode_request, encode_request
from forebay.testing.samples import message, request

NAMES = Names(tenants={"forebay.requests.sample.low": "acme"})
REQUESTS = "forebay.requests.sample.low"


def read(record: confluent_kafka.Message) -> Message:
    return from_record(record, headers_of(record), NAMES, ForeignClocks())


def test_a_message_comes_back_as_it_was_sent() -> None:
    sent = message(1, data=bytes(range(256)))
    assert read(delivered(to_record(REQUESTS, sent))) == sent


def test_headers_beside_its_own_win() -> None:
    record = to_record("t", message(1), more={"forebay-attempt": "2", "ce_id": "other"})
    assert dict(record.headers)["forebay-attempt"] == b"2"
    assert dict(record.headers)["ce_id"] == b"other"


@given(tenant=st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=40))
def test_a_key_is_split_at_its_last_slash(tenant: str) -> None:
    assert split_key(key_of(tenant, "0193-abc")) == (tenant, "0193-abc")


@pytest.mark.parametrize(
    "key", [None, b"", b"job", b"/job", b"tenant/", b"\xff/job", b"a\x00b/job", b"t/" + b"j" * 600]
)
def test_a_record_of_ours_without_a_key_that_names_a_job_is_malformed(key: bytes | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(delivered(to_record("forebay.events", message(1)), key=key))
    assert caught.value.code == "malformed_key"


@pytest.mark.parametrize("name", ["ce_id", "content-type", "forebay-metadata"])
def test_a_header_that_must_be_text_and_is_none_is_malformed(name: str) -> None:
    record = delivered(to_record(REQUESTS, message(1)), headers=[("forebay-wire", b"1"), (name, b"\xff")])
    with pytest.raises(InvalidRequest, match=name) as caught:
        read(record)
    assert caught.value.code == "malformed_header"


def test_a_header_that_another_library_added_harms_nobody() -> None:
    sent = message(1)
    headers: list[tuple[str, bytes | None]] = [*to_record(REQUESTS, sent).headers, ("x-trace", b"\xff"), ("none", None)]
    assert read(delivered(to_record(REQUESTS, sent), headers=headers)) == sent


@pytest.mark.parametrize(
    "error", [SystemError("with an exception set"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "?")]
)
def test_headers_that_the_library_fails_on_are_malformed(error: Exception) -> None:
    class Failing:
        def headers(self) -> None:
            raise error

    with pytest.raises(InvalidRequest) as caught:
        headers_of(cast("confluent_kafka.Message", Failing()))
    assert caught.value.code == "malformed_header"


def test_a_time_that_no_calendar_has_is_malformed() -> None:
    """Of a topic whose times are the producers'."""
    record = delivered(Record(REQUESTS, None, b"[1]"), timestamp=(confluent_kafka.TIMESTAMP_CREATE_TIME, 2**62))
    with pytest.raises(InvalidRequest, match="years") as caught:
        read(record)
    assert caught.value.code == "malformed_record"


def test_a_value_of_null_is_an_empty_one() -> None:
    assert read(delivered(to_record(REQUESTS, message(1)), value=None)).value == b""


def test_a_foreign_record_on_a_requests_topic_is_adopted() -> None:
    record = delivered(Record(REQUESTS, None, b"[1]", [("forebay-tenant", b"thief")]))
    adopted = decode_request(read(record))
    assert (adopted.tenant, adopted.model, adopted.lane) == ("acme", "sample", "low")
    assert adopted.accepted_at == AT_MS / 1000


def test_a_foreign_record_may_have_no_headers_at_all() -> None:
    assert read(delivered(Record(REQUESTS, b"\xff", b"[1]"), headers=None)).tenant == "acme"


def test_an_adopted_message_sent_on_is_no_longer_foreign() -> None:
    adopted = read(delivered(Record(REQUESTS, None, b"[1]")))
    again = delivered(to_record(REQUESTS, adopted), offset=99, timestamp=(2, AT_MS + 60_000))
    assert read(again) == adopted


def test_a_foreign_record_that_is_no_job_says_why() -> None:
    record = delivered(Record(REQUESTS, None, b"[1]", [("forebay-parameters", b"{")]))
    with pytest.raises(InvalidRequest, match="a header is wrong") as caught:
        read(record)
    assert caught.value.code == "malformed_record"


def test_a_foreign_record_elsewhere_is_only_a_record() -> None:
    found = read(delivered(Record("forebay.events", b"t/job", b"[1]")))
    assert found == Message(tenant="t", job_id="job", headers={}, value=b"[1]")


def test_a_log_that_knows_no_time() -> None:
    assert logged_at(delivered(Record("t", None, None), timestamp=(0, -1))) == 0.0


def test_the_size_of_a_record_counts_all_of_it() -> None:
    small = to_record(REQUESTS, encode_request(request(1)))
    large = to_record(REQUESTS, encode_request(request(1, metadata={"note": "x" * 1000})))
    assert large.size_bytes - small.size_bytes >= 1000
