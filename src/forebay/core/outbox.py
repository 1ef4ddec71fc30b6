"""What facts make to be told: the deliveries of jobs and batches, with their bodies. Pure.

A body is made once, from the job's request and the one event that it tells of: so it is the same, to the byte, at every
try and after a rebuild, in whatever order the parts of the log were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from forebay.core.delivery import DeliveryEvent, DeliveryStatus, WebhookDelivery, apply_delivery, delivery_id, made
from forebay.core.event import EventKind, JobEvent, JobRequest
from forebay.core.job import Job, JobStatus
from forebay.core.job_batch import JobBatch
from forebay.core.job_object import job_object, urls_of
from forebay.core.partials import Key
from forebay.core.payload import JSON, Payload
from forebay.core.times import to_rfc3339
from forebay.core.webhook import WebhookEvent, WebhookTarget

RESULT_MOST_BYTES = 16 * 1024
"""A larger result is fetched from `urls.result`, larger output followed at `urls.events`: receivers expect messages
below some 20 kB (Standard Webhooks 1.0.0, payload structure)."""

_encode = msgspec.json.Encoder().encode


class HeldOutput(Struct, frozen=True, kw_only=True):
    """Chunks that came before the job's request, which alone says who is told of them."""

    tenant: str
    job_id: str
    attempt: int
    first: int
    at: float
    chunks: bytes


DeliveryKey = tuple[str, str, str]
"""Tenant, id of the job or batch, id of the delivery."""


class OutboxRows:
    """What some facts change in the outbox. First every fact is noted, in the order of the log, then what had been held
    of the jobs in `late` is released, then the rows are asked for."""

    def __init__(self) -> None:
        self._held: list[HeldOutput] = []
        self.late: dict[Key, Job] = {}
        """Jobs whose request came after events of theirs, of which outputs may be held that somebody wants."""
        self._unread: set[Key] = set()  # they had ended before their request came
        self.deleted: set[Key] = set()
        """Jobs that are deleted, of which there may be deliveries."""
        self.heard: set[Key] = set()
        """Jobs and batches of whose deliveries something became."""
        self._made: list[WebhookDelivery] = []
        self._ended: dict[Key, tuple[Job, float]] = {}
        self._steps: list[Key | DeliveryEvent] = []
        self._newest = 0.0

    def note(self, before: Job | None, after: Job, fact: JobRequest | JobEvent) -> None:
        """`fact` made the job `after` of the job `before`."""
        if after.line is not None:
            self._newest = max(self._newest, fact.taken_at)
        if after is before or (after.model and not after.webhooks):  # nearly all: they tell nobody
            return
        key = (after.tenant, after.id)
        if after.deleted_at is not None:
            self._steps.append(key)
            if before is None or not before.model or before.webhooks:
                self.deleted.add(key)
            return
        emitted = fact if isinstance(fact, JobEvent) and fact.kind is EventKind.OUTPUT else None
        if not after.model:
            if emitted is not None:
                self._held.append(_held(emitted))
            return
        was_stub = before is None or not before.model
        if after.started_at is not None and (was_stub or before is None or before.started_at is None):
            self._add(WebhookEvent.STARTED, after, "started", _started(after), after.started_at, fact.taken_at)
        if emitted is not None:
            self._add_output(after, _held(emitted), fact.taken_at)
        if was_stub and before is not None and _wants(after, WebhookEvent.OUTPUT):
            self.late[key] = after
        if after.status.final and (was_stub or before is None or not before.status.final):
            self._ended[key] = (after, fact.taken_at)
            if was_stub and after.output is None:
                self._unread.add(key)

    def hear(self, event: DeliveryEvent) -> None:
        """Of a delivery."""
        self._steps.append(event)
        self.heard.add((event.tenant, event.job_id))

    def release(self, held: Iterable[HeldOutput]) -> None:
        """What a store had held of the jobs in `late`."""
        for one in (*held, *self._held):
            job = self.late.get((one.tenant, one.job_id))
            if job is not None:
                self._add_output(job, one, one.at)

    @property
    def held(self) -> list[HeldOutput]:
        """What a store is to hold. Where nobody turns out to want it, it goes with the job."""
        gone = self.late.keys() | {step for step in self._steps if not isinstance(step, DeliveryEvent)}
        return [one for one in self._held if (one.tenant, one.job_id) not in gone]

    def end_batch(self, before: JobBatch, after: JobBatch) -> None:
        """A batch as it was and as it is, after the facts that were noted."""
        if not after.webhooks or not _is_over(after) or _is_over(before):
            return
        for target in after.webhooks:
            if WebhookEvent.COMPLETED in target.events:
                due_at = self._newest or after.last_at
                body = _batch_completed(after)
                self._made.append(_delivery(after, "completed", target, body, after.last_at, due_at))

    def to_read(self, changed: Iterable[tuple[Job | None, Job]]) -> list[Key]:
        """Jobs whose outputs are told or shown and that were final before, so that a store has not loaded them.
        `changed`: the jobs of these facts, as they were and as they are."""
        return [
            (job.tenant, job.id)
            for old, job in changed
            if old is not None and old.status.final
            if job.deleted_at is None or (job.tenant, job.id) in self._unread
        ]

    def end_jobs(self, outputs: Mapping[Key, Payload]) -> None:
        """`outputs`: those that were `to_read`."""
        for key, (job, taken_at) in self._ended.items():
            assert job.finished_at is not None, "it has ended"
            body = _completed(replace(job, output=outputs[key]) if key in outputs else job)
            self._add(WebhookEvent.COMPLETED, job, "completed", body, job.finished_at, taken_at)

    @property
    def named(self) -> list[DeliveryKey]:
        """The rows that may be different now, in their order; beside them all of the jobs in `deleted`."""
        said = {_key_of(step) for step in self._steps if isinstance(step, DeliveryEvent)}
        return sorted(said.union(_key(one) for one in self._made))

    def changes(
        self, known: Mapping[DeliveryKey, WebhookDelivery], gone: Iterable[Key]
    ) -> dict[DeliveryKey, WebhookDelivery | None]:
        """The rows that are different now, None for one that is no more. `known`: those that are there, their bodies
        apart. `gone`: which of the jobs in `heard` had been deleted before.

        Of a deleted job only what is pending stays: it is sent all the same.
        """
        rows: dict[DeliveryKey, WebhookDelivery | None] = dict(known)
        deleted = set(gone)
        for one in self._made:
            rows[_key(one)] = made(rows.get(_key(one)), one)
        of_job: dict[Key, list[DeliveryKey]] = {}
        for key in {**rows, **dict.fromkeys(self.named)}:
            of_job.setdefault(key[:2], []).append(key)
        for step in self._steps:
            if isinstance(step, DeliveryEvent):
                key = _key_of(step)
                row = rows.get(key)
                if row is not None or key[:2] not in deleted:
                    rows[key] = apply_delivery(row, step)
                touched = [key]
            else:
                deleted.add(step)
                touched = of_job.get(step, [])
            rows.update((key, None) for key in touched if key[:2] in deleted and not _is_to_be_sent(rows.get(key)))
        return {key: row for key, row in rows.items() if row is not known.get(key)}

    def _add_output(self, job: Job, held: HeldOutput, taken_at: float) -> None:
        about = f"output.{held.attempt}.{held.first}"
        self._add(WebhookEvent.OUTPUT, job, about, _output(job, held), held.at, taken_at)

    def _add(
        self, event: WebhookEvent, job: Job, about: str, body: Mapping[str, Any], at: float, taken_at: float
    ) -> None:
        for target in job.webhooks:
            if event in target.events:
                self._made.append(_delivery(job, about, target, body, at, taken_at))


def _key(delivery: WebhookDelivery) -> DeliveryKey:
    return delivery.tenant, delivery.job_id, delivery.id


def _key_of(event: DeliveryEvent) -> DeliveryKey:
    return event.tenant, event.job_id, event.delivery_id


def _is_to_be_sent(row: WebhookDelivery | None) -> bool:
    return row is not None and bool(row.type) and row.status is DeliveryStatus.PENDING


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
    if len(held.chunks) <= RESULT_MOST_BYTES:
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
