"""Entity tags of outputs (RFC 9110 section 8.8.3). An output never changes, so its tag is strong."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from forebay.core.job import Job


def etag(job: Job) -> str:
    """Of a succeeded job's output: its digest, which of a blob is known."""
    if job.output is None:
        return '"empty"'
    digest = job.output.blob.sha256 if job.output.blob else hashlib.sha256(job.output.data or b"").hexdigest()
    return f'"{digest[:32]}"'


def matches(fields: Sequence[str], tag: str) -> bool:
    """Whether `If-None-Match` names it, by the weak comparison (RFC 9110 section 13.1.2)."""
    given = [part.strip().removeprefix("W/") for field in fields for part in field.split(",")]
    return tag in given or "*" in given
