"""What became of the records of one call of `publish`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from confluent_kafka import KafkaError

from forebay.adapters.kafka.records import Record
from forebay.core.errors import ForebayError, OutcomeUnknown, PayloadTooLarge, Unavailable

log = structlog.get_logger(__name__)

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE})
REFUSED = frozenset(
    {
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
    }
)
"""A broker has said no: nothing was written. Any other error may mean a record that is written, or will be."""


NO_TOPIC = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART})


def refusal(error: KafkaError) -> str:
    """In words, with the remedy where there is one."""
    remedy = "; `forebay topics apply` creates topics" if error.code() in NO_TOPIC else ""
    return f"Kafka refuses records: {error.str()} ({error.name()}){remedy}"


class Delivery:
    """How many reports are missing, and what those that came have said. `done` ends with the verdict, once.
    `expires_at`: when whoever waits wants to hear that nobody knows, by the loop's clock."""

    __slots__ = ("done", "error", "expires_at", "missing", "records", "unknown", "written")

    def __init__(self, loop: asyncio.AbstractEventLoop, records: Sequence[Record], expires_at: float) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.records = records
        self.expires_at = expires_at
        self.missing = len(records)
        self.written = 0
        self.unknown = ""
        self.error: ForebayError | None = None

    def reported(self, error: KafkaError | None, limit_bytes: int) -> None:
        if error is None:
            self.written += 1
        elif error.code() in TOO_LARGE:
            self.error = PayloadTooLarge("Kafka's topic does not take so large a record", limit_bytes=limit_bytes)
        elif error.code() in REFUSED:
            log.error("kafka.record_refused", topic=self.records[0].topic, code=error.name(), reason=error.str())
            self.error = self.error or Unavailable(refusal(error))
        else:
            self.unknown = f"{error.str()} ({error.name()})"
        self.missing -= 1
        if self.missing <= 0:
            self._conclude()

    def cut_short(self, handed_over: int, error: ForebayError) -> None:
        """Only so many were handed over; `error` is of the next, and no other follows."""
        self.error = error
        self.missing -= len(self.records) - handed_over
        if self.missing <= 0:
            self._conclude()

    def expire(self) -> None:
        self._end(self._unknown("Kafka has not confirmed it in time"))

    def _conclude(self) -> None:
        if self.unknown:
            self._end(self._unknown(self.unknown))
        elif isinstance(self.error, Unavailable) and self.written:
            self._end(self._unknown(f"{self.written} of {len(self.records)} were written: {self.error.message}"))
        else:
            self._end(self.error)

    def _unknown(self, reason: str) -> OutcomeUnknown:
        key = (self.records[0].key or b"").decode(errors="replace")
        return OutcomeUnknown(reason, job_id=key.rpartition("/")[2])

    def _end(self, error: ForebayError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
