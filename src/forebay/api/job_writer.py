"""The job object, and lists of it, as bytes of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from forebay.api.listing import cursor_of
from forebay.core.event import JobRequest
from forebay.core.job import Job
from forebay.core.job_object import JobObject, job_object, urls_of
from forebay.core.times import to_rfc3339
from forebay.ports.store import JobPage

_encode = msgspec.json.Encoder().encode


class JobWriter:
    """Writes job objects. `durability` is the queue's class now, for a job of which nothing but the id is known yet;
    every other carries the class of its own acceptance."""

    def __init__(self, durability: str) -> None:
        self._durability = durability

    def accepted(self, request: JobRequest, *, simple: bool = False) -> bytes:
        """The job as it is at the moment of acceptance."""
        return _encode(
            JobObject(
                request_id=request.job_id if simple else UNSET,
                id=request.job_id,
                model=request.model,
                version=request.version or UNSET,
                status="queued",
                lane=request.lane,
                attempts=0,
                created_at=to_rfc3339(request.accepted_at),
                retry_of=request.retry_of or UNSET,
                metadata=request.metadata or UNSET,
                durability=request.durability or self._durability,
                urls=urls_of(request.job_id),
            )
        )

    def job(self, job: Job, output: bytes | None = None, *, simple: bool = False) -> bytes:
        """`output` is the job's output if it is JSON."""
        return _encode(job_object(job, output, durability=self._durability, simple=simple))

    def job_with(self, job: Job, more: Mapping[str, Any]) -> bytes:
        """The job object, and further members."""
        members = msgspec.structs.asdict(job_object(job, durability=self._durability))
        return _encode({name: value for name, value in members.items() if value is not UNSET} | dict(more))

    def jobs(self, page: JobPage, name: str = "jobs") -> bytes:
        found: dict[str, Any] = {name: [job_object(job, durability=self._durability) for job in page.jobs]}
        if page.next is not None:
            found["next_cursor"] = cursor_of(page.next)
        return _encode(found)
