"""What stands in the log itself, the last word on every job. Read by readers of our own and by the documented form of
the records, so that a mistake of the service's readers cannot hide here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from chaos.history import FINAL

REQUEST_TYPE = "io.forebay.job.requested.v1"
DELAYED = "forebay-attempt"
"""Of a request that stands there again after a delay: which attempts it has had."""

EVENT_PREFIX, EVENT_SUFFIX = "io.forebay.job.", ".v1"


class FinalEvent(Struct, frozen=True):
    """`status` is that of the job after it, `output` the value as JSON, None for an end without output."""

    status: str
    attempt: int
    output: Any = None
    error_code: str = ""


class Facts(Struct, frozen=True):
    """`requests`: the SHA-256 of the submitted text, by job. `finals`: every final event of a job, in the order of the
    log. `dead_letters`: jobs with a copy there. `repeated`: requests of which the same stands there twice, since
    whoever wrote one could not tell whether it had been written (a broker that went); what a delay brings
    back has another count of attempts, or none has run."""

    requests: Mapping[str, str]
    finals: Mapping[str, Sequence[FinalEvent]]
    dead_letters: Sequence[str] = ()
    repeated: frozenset[str] = frozenset()


class Gathered:
    """Facts while they are read, record by record in the order of the log."""

    def __init__(self) -> None:
        self._requests: dict[str, str] = {}
        self._finals: dict[str, list[FinalEvent]] = {}
        self._dead: list[str] = []
        self._copies: Counter[tuple[str, str]] = Counter()

    def record(self, job_id: str, headers: Mapping[str, str], value: bytes) -> None:
        """A request, which may stand there again after a delay, or an event."""
        kind = headers.get("ce_type", "")
        if kind == REQUEST_TYPE:
            self._requests[job_id] = _digest(value)
            self._copies[job_id, headers.get(DELAYED, "")] += 1
        elif (status := kind.removeprefix(EVENT_PREFIX).removesuffix(EVENT_SUFFIX)) in FINAL:
            error = json.loads(headers["forebay-error"]) if "forebay-error" in headers else {}
            output = json.loads(value) if value else None
            event = FinalEvent(status, int(headers["forebay-attempt"]), output, error.get("code", ""))
            self._finals.setdefault(job_id, []).append(event)

    def dead_letter(self, job_id: str) -> None:
        self._dead.append(job_id)

    def facts(self) -> Facts:
        repeated = frozenset(job_id for (job_id, _), copies in self._copies.items() if copies > 1)
        return Facts(self._requests, self._finals, self._dead, repeated)


def _digest(value: bytes) -> str:
    """Of the text that was submitted; "" for what no client of ours sent."""
    try:
        text = json.loads(value)["text"]
    except (ValueError, KeyError, TypeError):
        return ""
    return hashlib.sha256(str(text).encode()).hexdigest()
