"""What stands in the log itself, the last word on every job. Read by readers of our own (chaos/topics.py for Kafka), so
that a mistake of the service's readers cannot hide here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class FinalEvent(Struct, frozen=True):
    """`status` is that of the job after it, `output` the value as JSON, None for an end without output."""

    status: str
    attempt: int
    output: Any = None
    error_code: str = ""


class Facts(Struct, frozen=True):
    """`requests`: the SHA-256 of the submitted text, by job. `finals`: every final event of a job, in the order of the
    log. `dead_letters`: jobs with a copy there."""

    requests: Mapping[str, str]
    finals: Mapping[str, Sequence[FinalEvent]]
    dead_letters: Sequence[str] = ()
