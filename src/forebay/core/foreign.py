"""Records put on a requests channel by a producer that is not ours, as jobs. Pure: every reader derives the same.

A *foreign* record has no `forebay-wire` header. What is needed to submit a job is a value; all else has a default:

    content-type            the value's media type; else application/json if the value is JSON, text/plain if it is
                            UTF-8, application/octet-stream for the rest
    ce_source and ce_id     CloudEvents 1.0: together they name the event. The same event with the same value sent twice
                            to one model is one job. Without both of them the record's own place is its name, so that
                            each record is a job
    forebay-version, forebay-parameters, forebay-metadata, forebay-start-within-s, forebay-run-timeout-s
                            as in `core/wire.py`, JSON objects and seconds; how long the job may live and is kept is the
                            service's to say, and the model's
    traceparent, tracestate are handed on

Whatever else it says is not believed: its tenant is that of the channel, its time that of the log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from forebay.core.clocks import MIN_RUN_TIMEOUT_S, ClockLimits
from forebay.core.errors import InvalidRequest
from forebay.core.ids import derived_id
from forebay.core.message import Channel, Message
from forebay.core.model import ModelLimits
from forebay.core.payload import JSON, TEXT
from forebay.core.times import to_rfc3339
from forebay.core.wire import REQUEST_TYPE, WIRE_VERSION, decode_request

OCTETS = "application/octet-stream"
STRUCTURED = "application/cloudevents"
HANDED_ON = (
    "traceparent",
    "tracestate",
    "forebay-version",
    "forebay-parameters",
    "forebay-metadata",
    "forebay-start-within-s",
    "forebay-run-timeout-s",
)

_parse = msgspec.json.Decoder().decode
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What no CloudEvents attribute may hold (CloudEvents 1.0.2, type system); the id is a hash of lines."""


class ForeignRecord(Struct, frozen=True, kw_only=True):
    """`place` names this one record in the log for ever; `logged_at` is when the log took it, in seconds since the
    epoch; `tenant` is that of whoever may write to the channel."""

    tenant: str
    channel: Channel
    place: str
    logged_at: float
    headers: Mapping[str, str]
    value: bytes


class ForeignClocks(Struct, frozen=True, kw_only=True):
    """Of the service, and of its models by name: what the clocks of these jobs are set to. Every reader must have the
    same, or they derive different jobs."""

    service: ClockLimits = ClockLimits()
    models: Mapping[str, ModelLimits] = {}

    def headers(self, model: str) -> dict[str, str]:
        limits = self.models.get(model, ModelLimits())
        clocks = {
            "forebay-start-within-s": limits.start_within_s,
            "forebay-retain-s": self.service.retain_of(None, limits),
            "forebay-max-life-s": self.service.max_life_s,
        }
        return {name: repr(seconds) for name, seconds in clocks.items() if seconds is not None}


def is_foreign(headers: Mapping[str, Any]) -> bool:
    return "forebay-wire" not in headers


def adopt(record: ForeignRecord, clocks: ForeignClocks) -> Message:
    """The message that our own producer would have sent. Raises InvalidRequest naming what is wrong."""
    given = record.headers
    if given.get("content-type", "").lower().startswith(STRUCTURED):
        raise InvalidRequest("CloudEvents in structured mode are not read; send the data itself, attributes as headers")
    if "forebay-blob" in given:
        raise InvalidRequest("only Forebay's API may refer to a blob: forebay-blob")
    for name in ("ce_source", "ce_id"):
        if _CONTROL.search(given.get(name, "")):
            raise InvalidRequest(f"{name} holds a control character")
    headers = {
        "ce_specversion": "1.0",
        "ce_type": REQUEST_TYPE,
        "ce_source": given.get("ce_source", "/forebay/foreign"),
        "ce_time": _time(record.logged_at),
        "ce_subject": record.channel.model,
        "forebay-wire": WIRE_VERSION,
        "forebay-tenant": record.tenant,
        "forebay-model": record.channel.model,
        "forebay-lane": record.channel.lane,
        "content-type": given.get("content-type") or media_type_of(record.value),
        **clocks.headers(record.channel.model),
        **{name: given[name] for name in HANDED_ON if name in given},
    }
    headers["ce_id"] = job_id = foreign_job_id(record)
    message = Message(tenant=record.tenant, job_id=job_id, headers=headers, value=record.value)
    asked = decode_request(message).run_timeout_s  # and its headers are as they must be
    if asked is not None and asked < MIN_RUN_TIMEOUT_S:
        raise InvalidRequest(f"forebay-run-timeout-s may be {MIN_RUN_TIMEOUT_S:g} s at least")
    return message


def foreign_job_id(record: ForeignRecord) -> str:
    """From tenant, model, the event's name and the value alone, so that a producer knows the id beforehand."""
    source, event = record.headers.get("ce_source", ""), record.headers.get("ce_id", "")
    name = ("event", source, event) if source and event else ("record", record.place, "")
    digest = hashlib.sha256(record.value).hexdigest()
    return derived_id(("forebay.foreign.v1", record.tenant, record.channel.model, *name, digest))


def _time(at: float) -> str:
    """Of a topic with LogAppendTime it is the broker's; of any other it is whatever the producer says."""
    try:
        return to_rfc3339(at)
    except (ValueError, OverflowError, OSError) as exc:
        raise InvalidRequest(f"the record's time, {at:.0f} s after 1970, is not within the years 1 to 9999") from exc


def media_type_of(value: bytes) -> str:
    """What a value without a content-type is taken for."""
    try:
        _parse(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the last: too deep for anybody here
        pass
    else:
        return JSON
    try:
        value.decode()
    except UnicodeDecodeError:
        return OCTETS
    return TEXT
