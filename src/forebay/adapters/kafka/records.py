"""Messages as records, and back."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import confluent_kafka
from msgspec import Struct

from forebay.adapters.kafka.names import Names
from forebay.core.errors import InvalidRequest
from forebay.core.foreign import ForeignClocks, ForeignRecord, adopt, is_foreign
from forebay.core.message import Message

OURS = ("ce_", "content-type", "forebay-")
"""Headers that must be text. One that somebody else's tracing adds may hold anything, and is left out then."""

KEY_MAX_BYTES = 512
Headers = Sequence[tuple[str, bytes]]
GivenHeaders = Sequence[tuple[str, bytes | None]]


ANY_PARTITION = -2
"""Of a record that may lie anywhere: where those lie that leave with it."""


class Record(Struct, frozen=True):
    """What a producer sends. `partition` -1: by the key's hash."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = -1

    @property
    def size_bytes(self) -> int:
        """As brokers count, to within a few bytes of framing."""
        headers = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers + 32


def key_of(tenant: str, job_id: str) -> bytes:
    """All that is said of one job has one key, and so keeps its order."""
    return f"{tenant}/{job_id}".encode()


def split_key(key: bytes | None) -> tuple[str, str]:
    """Tenant and job id; an id holds no "/". Raises InvalidRequest (`malformed_key`)."""
    if key is None:
        raise InvalidRequest("the record has no key", code="malformed_key")
    try:
        text = key.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the key is not UTF-8: {exc}", code="malformed_key") from exc
    tenant, _, job_id = text.rpartition("/")
    if not tenant or not job_id or not text.isprintable() or len(key) > KEY_MAX_BYTES:
        raise InvalidRequest("the key is not <tenant>/<job id>", code="malformed_key")
    return tenant, job_id


def to_record(topic: str, message: Message, *, partition: int = -1, more: Mapping[str, str] | None = None) -> Record:
    """`more` are headers beside the message's own; of two with one name they win."""
    headers = {**message.headers, **(more or {})}
    return Record(
        topic=topic,
        key=key_of(message.tenant, message.job_id),
        value=message.value,
        headers=[(name, value.encode()) for name, value in headers.items()],
        partition=partition,
    )


_headers: Callable[[confluent_kafka.Message], Any] = operator.methodcaller("headers")
"""Of a name that is not UTF-8 the library gives a list with holes and leaves an exception set. A call in C finds that
out, each time; `record.headers()` does so only until Python (3.11 and newer) has specialized the call."""


def headers_of(record: confluent_kafka.Message) -> GivenHeaders:
    """Its headers. Nobody else asks a record for them, and this once for each: the library fails on a name that is not
    UTF-8, and a second question would then end the process.

    Raises InvalidRequest (`malformed_header`).
    """
    try:
        given = _headers(record) or ()
    except (SystemError, UnicodeDecodeError) as exc:
        raise InvalidRequest("a header's name is not UTF-8", code="malformed_header") from exc
    pairs = given.items() if isinstance(given, dict) else given
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]


def text_headers(headers: GivenHeaders) -> dict[str, str]:
    """Headers as text, the last of a name that is not null. Raises InvalidRequest (`malformed_header`) for one of OURS
    that is no text."""
    found: dict[str, str] = {}
    for name, value in headers:
        if value is None:
            continue
        try:
            found[name] = value.decode()
        except UnicodeDecodeError as exc:
            if name.startswith(OURS):
                raise InvalidRequest(f"the header {name} is not UTF-8: {exc}", code="malformed_header") from exc
    return found


def from_record(record: confluent_kafka.Message, given: GivenHeaders, names: Names, clocks: ForeignClocks) -> Message:
    """The message in `record`, whose headers are `given`; of a foreign one on a requests topic, the message that we
    would have sent for it, with these clocks.

    Raises InvalidRequest: `malformed_key`, `malformed_header`, `malformed_record` (a foreign record that is no job).
    """
    headers = text_headers(given)
    topic = record.topic() or ""
    if is_foreign(headers) and names.is_requests_topic(topic):
        return _adopted(record, headers, topic, names, clocks)
    tenant, job_id = split_key(record.key())
    return Message(tenant=tenant, job_id=job_id, headers=headers, value=record.value() or b"")


def logged_at(record: confluent_kafka.Message) -> float:
    """When the log took it, in seconds since the epoch (topics are LogAppendTime); 0.0 where that is not known."""
    return max(record.timestamp()[1], 0) / 1000


def _adopted(
    record: confluent_kafka.Message, headers: Mapping[str, str], topic: str, names: Names, clocks: ForeignClocks
) -> Message:
    try:
        return adopt(
            ForeignRecord(
                tenant=names.tenant_of(topic),
                channel=names.channel_of(topic),
                # With its time: offsets begin anew where a topic was deleted and made again.
                place=f"{topic}/{record.partition()}/{record.offset()}@{record.timestamp()[1]}",
                logged_at=logged_at(record),
                headers=headers,
                value=record.value() or b"",
            ),
            clocks,
        )
    except InvalidRequest as exc:
        raise InvalidRequest(exc.message, code="malformed_record") from exc
