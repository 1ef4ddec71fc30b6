"""Partial output: what the newest attempt of a job has emitted so far, as rows beside the job's.

A job's rows come one after the other, none is missing between. They begin anew with each attempt, and stay once the job
is final: so that whoever reads them can read to their end.
"""

from __future__ import annotations

from msgspec import Struct

from forebay.core.event import JobEvent, JobRequest
from forebay.core.job import Job

Key = tuple[str, str]
"""Tenant and id of a job."""


class Partial(Struct, frozen=True, kw_only=True):
    """Chunks number `first` to `last` of an attempt, from 0: a JSON array in one line."""

    attempt: int
    first: int
    last: int
    chunks: bytes


class PartialRows:
    """What some facts change in these rows: first all of `dropped` go, then `added` are there."""

    def __init__(self) -> None:
        self.dropped: set[Key] = set()
        self.added: dict[Key, list[Partial]] = {}

    def note(self, before: Job | None, after: Job, fact: JobRequest | JobEvent) -> None:
        """`fact` made the job `after` of the job `before`."""
        if after.deleted_at is not None:
            if after is not before:
                self._drop((after.tenant, after.id))
            return
        had = before.interim.chunks if before is not None and before.interim is not None else 0
        has = after.interim.chunks if after.interim is not None else 0
        if has > had and isinstance(fact, JobEvent) and fact.output is not None:
            partial = Partial(attempt=fact.attempt, first=had, last=has - 1, chunks=fact.output.data or b"")
            self.added.setdefault((after.tenant, after.id), []).append(partial)
        elif has < had and not after.status.final:
            self._drop((after.tenant, after.id))

    def _drop(self, key: Key) -> None:
        self.added.pop(key, None)
        self.dropped.add(key)
