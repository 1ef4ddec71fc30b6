"""What facts make to be told: the deliveries of jobs and batches, with their bodies. Pure.

A body is made once, from the job's request and the one event that it tells of: so it is the same, to the byte, at every
try and after a rebuild, in whatever order the parts of the log were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from forebay.core.delivery import WebhookDelivery, delivery_id
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.job import Job, JobStatus
from forebay.core.job_batch import JobBatch
from forebay.core.job_object import job_object, urls_of
from forebay.core.partials import Key
from forebay.core.payload import JSON
from forebay.core.times import to_rfc3339
from forebay.core.webhook import WebhookEvent, WebhookTarget

RESULT_MOST_BYTES = 16 * 1024
"""A larger result is fetched from `urls.result`: receivers expect messages below some 20 kB (Standard Webhooks 1.0.0,
payload structure)."""

_encode = msgspec.json.Encoder().encode


class HeldOutput(Struct, frozen=True, kw_only=True):
    """Chunks that came before the job's request, which alone says who is told of them."""

    tenant: str
    job_id: str
    attempt: int
    first: int
    at: float
    chunks: bytes


class OutboxRows:
    """What some facts add to the outbox. First every fact is noted, then what had been held of the jobs in `late` is
    released, then all is asked for."""

    def __init__(self) -> None:
        self._held: list[HeldOutput] = []
        self.late: dict[Key, Job] = {}
        """Jobs whose request came after events of theirs, of which outputs may be held that somebody wants."""
        self._made: list[WebhookDelivery] = []
        self._ended: dict[Key, float] = {}
        self._newest = 0.0

    def note(self, before: Job | None, after: Job, fact: JobRequest | JobEvent) -> None:
        """`fact` made the job `after` of the job `before`."""
        self._newest = max(self._newest, fact.taken_at)
        if after is before or after.deleted_at is not None:
            return
        emitted = isinstance(fact, JobEvent) and fact.kind is EventKind.OUTPUT
        if not after.model:
            if emitted:
                self._held.append(_held(fact))
            return
        if not after.webhooks:
            return
        was_stub = before is None or not before.model
        if after.started_at is not None and (was_stub or before is None or before.started_at is None):
            self._add(WebhookEvent.STARTED, after, "started", _started(after), after.started_at, fact.taken_at)
        if emitted:
            self._add_output(after, _held(fact), fact.taken_at)
        if was_stub and before is not None and _wants(after, WebhookEvent.OUTPUT):
            self.late[after.tenant, after.id] = after
        if after.status.final and (was_stub or before is None or not before.status.final):
            self._ended[after.tenant, after.id] = fact.taken_at

    def release(self, held: Iterable[HeldOutput]) -> None:
        """What a store had held of the jobs in `late`."""
        for one in (*held, *self._held):
            job = self.late.get((one.tenant, one.job_id))
            if job is not None:
                self._add_output(job, one, one.at)

    @property
    def held(self) -> list[HeldOutput]:
        """What a store is to hold. Where nobody turns out to want it, it goes with the job."""
        return [one for one in self._held if (one.tenant, one.job_id) not in self.late]

    def end_batch(self, before: JobBatch | None, after: JobBatch) -> None:
        """A batch as it was and as it is, after the facts that were noted."""
        if not after.webhooks or not _is_over(after) or (before is not None and _is_over(before)):
            return
        for target in after.webhooks:
            if WebhookEvent.COMPLETED in target.events:
                due_at = self._newest or after.last_at
                body = _batch_completed(after)
                self._made.append(_delivery(after, "completed", target, body, after.last_at, due_at))

    def deliveries(self, changed: Iterable[Job]) -> Sequence[WebhookDelivery]:
        """All of them. `changed`: the jobs that these facts changed, those that are final with their outputs."""
        for job in changed:
            key = (job.tenant, job.id)
            if key in self._ended and job.finished_at is not None:
                body = _completed(job)
                self._add(WebhookEvent.COMPLETED, job, "completed", body, job.finished_at, self._ended[key])
        return self._made

    def _add_output(self, job: Job, held: HeldOutput, taken_at: float) -> None:
        about = f"output.{held.attempt}.{held.first}"
        self._add(WebhookEvent.OUTPUT, job, about, _output(job, held), held.at, taken_at)

    def _add(
        self, event: WebhookEvent, job: Job, about: str, body: Mapping[str, Any], at: float, taken_at: float
    ) -> None:
        for target in job.webhooks:
            if event in target.events:
                self._made.append(_delivery(job, about, target, body, at, taken_at))


def _wants(job: Job, event: WebhookEvent) -> bool:
    return any(event in target.events for target in job.webhooks)


def _is_over(batch: JobBatch) -> bool:
    return batch.created_at > 0 and batch.finished_at is not None


def _delivery(
    of: Job | JobBatch, about: str, target: WebhookTarget, body: Mapping[str, Any], at: float, due_at: float
) -> WebhookDelivery:
    return WebhookDelivery(
        tenant=of.tenant,
        job_id=of.id,
        id=delivery_id(of.tenant, of.id, about, target),
        type=body["type"],
        endpoint=target.endpoint,
        url=target.url,
        created_at=at,
        body=_encode(body),
        since=due_at,
        next_at=due_at,
    )


def _held(event: JobEvent) -> HeldOutput:
    return HeldOutput(
        tenant=event.tenant,
        job_id=event.job_id,
        attempt=event.attempt,
        first=event.sequence,
        at=event.taken_at,
        chunks=event.output.data or b"[]" if event.output is not None else b"[]",
    )


def _body(kind: str, at: float, data: Any) -> Mapping[str, Any]:
    """The members that Standard Webhooks 1.0.0 names."""
    return {"type": kind, "timestamp": to_rfc3339(at), "data": data}


def _started(job: Job) -> Mapping[str, Any]:
    """As the job was then, without what later attempts may have changed."""
    assert job.started_at is not None, "it has started"
    then = Job(
        tenant=job.tenant,
        id=job.id,
        status=JobStatus.RUNNING,
        model=job.model,
        lane=job.lane,
        created_at=job.created_at,
        started_at=job.started_at,
        metadata=job.metadata,
        durability=job.durability,
        line=job.line,
        retry_of=job.retry_of,
    )
    return _body("job.started", job.started_at, replace(job_object(then), attempts=UNSET))


def _output(job: Job, held: HeldOutput) -> Mapping[str, Any]:
    data: dict[str, Any] = {"id": job.id, "model": job.model, "attempt": held.attempt, "first": held.first}
    data["chunks"] = Raw(held.chunks)
    if job.metadata:
        data["metadata"] = job.metadata
    data["urls"] = urls_of(job.id)
    return _body("job.output", held.at, data)


def _completed(job: Job) -> Mapping[str, Any]:
    assert job.finished_at is not None, "it has ended"
    output = job.output.data if job.output is not None and job.output.media_type == JSON else None
    if output is not None and len(output) > RESULT_MOST_BYTES:
        output = None
    return _body(f"job.{job.status.value}", job.finished_at, job_object(job, output))


def _batch_completed(batch: JobBatch) -> Mapping[str, Any]:
    """How many of its lines came to what; and not its status, since whoever cancels it in this moment may be late or
    not by the order in which the log is read."""
    path = f"/v1/batches/{batch.id}"
    return _body(
        "batch.completed",
        batch.last_at,
        {
            "id": batch.id,
            "created_at": to_rfc3339(batch.created_at),
            "finished_at": to_rfc3339(batch.last_at),
            "counts": {
                "total": batch.total,
                "rejected": batch.rejected,
                "succeeded": batch.succeeded,
                "failed": batch.failed,
                "canceled": batch.canceled,
                "expired": batch.expired,
            },
            "urls": {"self": path, "results": f"{path}/results"},
        },
    )
