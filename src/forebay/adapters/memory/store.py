"""Visible job state in dictionaries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from msgspec.structs import replace

from forebay.adapters.memory.outbox import MemoryOutbox
from forebay.core.delivery import DeliveryEvent, WebhookDelivery
from forebay.core.errors import Unavailable
from forebay.core.fact import JobFact
from forebay.core.job import Job, apply
from forebay.core.job_batch import BatchEvent, JobBatch, Key, RejectedLine, changes_of
from forebay.core.outbox import OutboxRows
from forebay.core.partials import Partial, PartialRows
from forebay.core.queues import LaneCount, moved, waits
from forebay.core.quota import Use
from forebay.core.reservation import KEEP_S, Reservation, newest_of
from forebay.ports.due import FRONT, DuePlace
from forebay.ports.event_log import START, LogBatch
from forebay.ports.job_batches import BatchPage, BatchPlace
from forebay.ports.outbox import DeliveryPage, DeliveryQuery, OutboxCount
from forebay.ports.reservations import Claim
from forebay.ports.store import JobPage, JobQuery, Place, ResultStore, Subscription


class MemoryStore(ResultStore):
    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}
        self._outbox = MemoryOutbox()
        self._partials: dict[tuple[str, str], list[Partial]] = {}
        self._positions: dict[str, str] = {}
        self._subscriptions: dict[tuple[str, str], set[MemorySubscription]] = {}
        self._rebuilding: Mapping[str, str] | None = None
        self._reservations: dict[tuple[str, str], Reservation] = {}
        self._batches: dict[Key, JobBatch] = {}
        self._rejected: dict[Key, dict[int, RejectedLine]] = {}
        self._swept: set[tuple[str, str]] = set()
        self._leases: dict[tuple[str, str], tuple[str, float]] = {}  # holder, and until when by our clock

    async def project(self, batches: Sequence[LogBatch]) -> list[Job] | None:
        if any(self._positions.get(batch.source, START) != batch.start for batch in batches):
            return None
        self._positions.update((batch.source, batch.end) for batch in batches)
        facts = [fact for batch in batches for fact in batch.facts]
        changed: dict[tuple[str, str], Job] = {}
        rows, told = PartialRows(), OutboxRows()
        were: dict[tuple[str, str], Job | None] = {}
        for fact in facts:
            if isinstance(fact, DeliveryEvent):
                told.hear(fact)
            if not isinstance(fact, JobFact):
                continue
            key = (fact.tenant, fact.job_id)
            before = self._jobs.get(key)
            after = apply(before, fact)
            if after is not before:
                were.setdefault(key, before)
                changed[key] = self._jobs[key] = after
                rows.note(before, after, fact)
                told.note(before, after, fact)
        for key in rows.dropped:
            self._partials.pop(key, None)
        for key, added in rows.added.items():
            self._partials.setdefault(key, []).extend(added)
        said = [fact for fact in facts if isinstance(fact, BatchEvent)]
        for place, changes in changes_of(said, [(were[key], job) for key, job in changed.items()]).items():
            known_batch = self._batches.get(place) or JobBatch(tenant=place[0], id=place[1])
            self._batches[place], rejected = changes.apply(known_batch)
            told.end_batch(known_batch, self._batches[place])
            self._rejected.setdefault(place, {}).update((one.line, one) for one in rejected)
        for reserved in newest_of(facts):
            known = self._reservations.get((reserved.tenant, reserved.key))
            if known is None or known.job_id == reserved.job_id or known.accepted_at < reserved.accepted_at:
                self._reservations[reserved.tenant, reserved.key] = reserved
        for key in changed:
            for subscription in self._subscriptions.get(key, ()):
                subscription.wake()
        self._swept -= changed.keys()
        told.release(self._outbox.held_of(told.late))
        told.end_jobs({})  # each job has its output with it
        was = {key: were[key] if key in were else self._jobs.get(key) for key in told.heard}
        gone = [key for key, job in was.items() if job is not None and job.deleted_at is not None]
        self._outbox.project(told, gone)
        return [job for job in changed.values() if job.model or job.deleted_at is not None]

    async def position(self, source: str) -> str:
        return self._positions.get(source, START)

    async def positions(self) -> Mapping[str, str]:
        return dict(self._positions)

    async def begin_rebuild(self, ends: Callable[[], Awaitable[Mapping[str, str]]]) -> None:
        until = await ends()
        self._jobs.clear()
        self._partials.clear()
        self._batches.clear()
        self._rejected.clear()
        self._swept.clear()
        self._outbox.clear()
        self._positions.clear()
        self._reservations = {key: one for key, one in self._reservations.items() if not one.published}
        self._rebuilding = dict(until)

    async def rebuilding(self) -> Mapping[str, str] | None:
        return self._rebuilding

    async def end_rebuild(self) -> None:
        self._rebuilding = None

    async def get(self, tenant: str, job_id: str) -> Job | None:
        self._refuse_while_rebuilding()
        job = self._jobs.get((tenant, job_id))
        return job if job is not None and (job.model or job.deleted_at is not None) else None

    async def list_jobs(self, query: JobQuery) -> JobPage:
        self._refuse_while_rebuilding()
        ranged = sorted(
            (job for job in self._jobs.values() if job.model and job.tenant == query.tenant and _in_range(job, query)),
            key=_place,
            reverse=True,
        )
        looked_at = ranged[: query.look]
        found = [
            replace(job, output=None)
            for job in looked_at
            if query.model in (None, job.model) and query.status in (None, job.status)
        ]
        if len(found) > query.limit:
            return JobPage(found[: query.limit], _place(found[query.limit - 1]))
        return JobPage(found, _place(looked_at[-1]) if len(looked_at) < len(ranged) else None)

    async def partials(self, tenant: str, job_id: str, attempt: int, chunk: int, limit: int) -> list[Partial]:
        self._refuse_while_rebuilding()
        rows = self._partials.get((tenant, job_id), [])
        return [row for row in rows if (row.attempt, row.last) >= (attempt, chunk)][:limit]

    async def batch(self, tenant: str, batch_id: str) -> JobBatch | None:
        self._refuse_while_rebuilding()
        batch = self._batches.get((tenant, batch_id))
        return batch if batch is not None and batch.created_at else None

    async def list_batches(self, tenant: str, *, after: BatchPlace | None, limit: int) -> BatchPage:
        self._refuse_while_rebuilding()
        places = sorted(
            ((one.created_at, one.id) for one in self._batches.values() if one.tenant == tenant and one.created_at),
            reverse=True,
        )
        found = [place for place in places if after is None or place < after]
        batches = [self._batches[tenant, batch_id] for _, batch_id in found[:limit]]
        return BatchPage(batches, found[limit - 1] if len(found) > limit else None)

    async def lines(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job | RejectedLine]:
        self._refuse_while_rebuilding()
        found: dict[int, Job | RejectedLine] = dict(self._rejected.get((tenant, batch_id), {}))
        found.update(self._jobs_of(tenant, batch_id))
        return [found[number] for number in sorted(found) if number > after][:limit]

    async def unfinished(self, tenant: str, batch_id: str, *, after: int, limit: int) -> list[Job]:
        self._refuse_while_rebuilding()
        jobs = self._jobs_of(tenant, batch_id)
        found = [jobs[number] for number in sorted(jobs) if number > after and not jobs[number].status.final]
        return [replace(job, output=None) for job in found[:limit]]

    def _jobs_of(self, tenant: str, batch_id: str) -> dict[int, Job]:
        return {
            job.line.number: job
            for job in self._jobs.values()
            if job.tenant == tenant and job.line is not None and job.line.batch_id == batch_id
        }

    async def queues(self) -> list[LaneCount]:
        self._refuse_while_rebuilding()
        counts = moved((None, job) for job in self._jobs.values())
        oldest: dict[tuple[str, str], float] = {}
        for job in filter(waits, self._jobs.values()):
            place = (job.model, job.lane)
            oldest[place] = min(job.created_at, oldest.get(place, job.created_at))
        return [
            LaneCount(model=place[0], lane=place[1], waiting=waiting, running=running, oldest_at=oldest.get(place))
            for place, (waiting, running) in sorted(counts.items())
        ]

    async def ahead(self, job: Job, look: int) -> int:
        self._refuse_while_rebuilding()
        before = [one for one in self._jobs.values() if waits(one) and _place(one) < _place(job)]
        return min(look, sum((one.model, one.lane) == (job.model, job.lane) for one in before))

    async def used(self, tenant: str, *, minute_from: float, day_from: float, most: Use) -> Use:
        self._refuse_while_rebuilding()
        known = [job for job in self._jobs.values() if job.tenant == tenant]
        jobs = [job for job in known if job.model or job.deleted_at is not None]
        return Use(
            jobs_per_minute=min(most.jobs_per_minute, sum(job.created_at > minute_from for job in jobs)),
            jobs_per_day=min(most.jobs_per_day, sum(job.created_at > day_from for job in jobs)),
            jobs_outstanding=min(most.jobs_outstanding, sum(not job.status.final for job in jobs)),
        )

    async def due(self, now: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        self._refuse_while_rebuilding()
        found = {
            (job.over_at, *key): replace(job, output=None)
            for key, job in self._jobs.items()
            if job.over_at is not None and job.over_at <= now and job.deleted_at is None
        }
        return _behind(after, found, limit)

    async def unswept(self, limit: int, after: DuePlace = FRONT) -> list[Job]:
        self._refuse_while_rebuilding()
        found = {
            place: job
            for place, job in self._tombstones().items()
            if place[1:] not in self._swept and not self._outbox.is_pending(place[1:])
        }
        return _behind(after, found, limit)

    async def swept(self, tombstones: Sequence[Job]) -> None:
        self._refuse_while_rebuilding()
        self._swept.update((job.tenant, job.id) for job in tombstones)

    async def tombstones(self, before: float, limit: int, after: DuePlace = FRONT) -> list[Job]:
        self._refuse_while_rebuilding()
        return _behind(after, {place: job for place, job in self._tombstones().items() if place[0] < before}, limit)

    def _tombstones(self) -> dict[DuePlace, Job]:
        return {(job.deleted_at, *key): job for key, job in self._jobs.items() if job.deleted_at is not None}

    async def forget(self, tombstones: Sequence[Job]) -> None:
        self._refuse_while_rebuilding()
        for key in ((job.tenant, job.id) for job in tombstones):
            if key in self._jobs and self._jobs[key].deleted_at is not None:
                del self._jobs[key]
                self._outbox.forget(key)
        named = {(job.tenant, job.id) for job in tombstones}
        self._reservations = {
            key: one for key, one in self._reservations.items() if (one.tenant, one.job_id) not in named
        }

    async def forget_unpublished(self, before: float) -> None:
        self._refuse_while_rebuilding()
        self._reservations = {
            key: one for key, one in self._reservations.items() if one.published or one.accepted_at >= before
        }

    async def reserve(self, wanted: Reservation, *, holder: str, lease_s: float) -> Claim:
        self._refuse_while_rebuilding()
        place, now = (wanted.tenant, wanted.key), time.monotonic()
        known = self._reservations.get(place)
        resumed = False
        if known is None or (known.accepted_at < wanted.accepted_at - KEEP_S and known.job_id != wanted.job_id):
            known = self._reservations[place] = wanted
        else:
            whose, until = self._leases.get(place, ("", 0.0))
            free = not known.published and known.fingerprint == wanted.fingerprint and (until <= now or whose == holder)
            if not free:
                return Claim(known, held=False)
            resumed = True
        self._leases[place] = (holder, now + lease_s)
        return Claim(known, held=True, resumed=resumed)

    async def published(self, reservation: Reservation) -> None:
        self._refuse_while_rebuilding()
        place = (reservation.tenant, reservation.key)
        known = self._reservations.get(place)
        if known is not None and known.job_id == reservation.job_id:
            self._reservations[place] = replace(known, published=True)

    async def release(self, reservation: Reservation, *, holder: str) -> None:
        self._refuse_while_rebuilding()
        place = (reservation.tenant, reservation.key)
        if self._leases.get(place, ("", 0.0))[0] == holder:
            del self._leases[place]

    async def withdraw(self, reservation: Reservation, *, holder: str) -> None:
        self._refuse_while_rebuilding()
        place = (reservation.tenant, reservation.key)
        known = self._reservations.get(place)
        if known is not None and not known.published and self._leases.get(place, ("", 0.0))[0] == holder:
            del self._reservations[place], self._leases[place]

    async def reserved(self, tenant: str, key: str) -> Reservation | None:
        self._refuse_while_rebuilding()
        return self._reservations.get((tenant, key))

    async def published_of(self, tenant: str, keys: Sequence[str]) -> frozenset[str]:
        self._refuse_while_rebuilding()
        known = {key: self._reservations.get((tenant, key)) for key in keys}
        return frozenset(key for key, one in known.items() if one is not None and one.published)

    async def claim(
        self,
        now: float,
        *,
        holder: str,
        until: float,
        limit: int,
        each: int,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> list[WebhookDelivery]:
        self._refuse_while_rebuilding()
        return self._outbox.claim(now, holder, until, limit, each, only, without)

    async def claim_late(self, now: float, *, holder: str, until: float, limit: int) -> list[WebhookDelivery]:
        self._refuse_while_rebuilding()
        return self._outbox.claim_late(now, holder, until, limit)

    async def settle(self, holder: str, events: Sequence[DeliveryEvent]) -> None:
        self._refuse_while_rebuilding()
        self._outbox.settle(holder, events)

    async def give_back(self, holder: str) -> None:
        self._refuse_while_rebuilding()
        self._outbox.give_back(holder)

    async def deliveries(self, tenant: str, job_id: str, limit: int) -> list[WebhookDelivery]:
        self._refuse_while_rebuilding()
        return self._outbox.deliveries((tenant, job_id), limit)

    async def delivery(self, tenant: str, job_id: str, delivery_id: str) -> WebhookDelivery | None:
        self._refuse_while_rebuilding()
        return self._outbox.delivery((tenant, job_id), delivery_id)

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        self._refuse_while_rebuilding()
        return self._outbox.list_deliveries(query)

    async def outbox(self) -> OutboxCount:
        self._refuse_while_rebuilding()
        return self._outbox.count()

    def _refuse_while_rebuilding(self) -> None:
        if self._rebuilding is not None:
            raise Unavailable("job states are being rebuilt from the log", code="rebuilding")

    def subscribe(self, tenant: str, job_id: str) -> AbstractAsyncContextManager[Subscription]:
        return self._subscribe((tenant, job_id))

    @asynccontextmanager
    async def _subscribe(self, key: tuple[str, str]) -> AsyncIterator[Subscription]:
        subscription = MemorySubscription()
        of_job = self._subscriptions.setdefault(key, set())
        of_job.add(subscription)
        try:
            yield subscription
        finally:
            of_job.discard(subscription)
            if not of_job:
                self._subscriptions.pop(key, None)


def _behind(after: DuePlace, jobs: Mapping[DuePlace, Job], limit: int) -> list[Job]:
    return [jobs[place] for place in sorted(jobs) if place > after][:limit]


def _place(job: Job) -> Place:
    return job.created_at, job.id


def _in_range(job: Job, query: JobQuery) -> bool:
    return (
        (query.created_after is None or job.created_at > query.created_after)
        and (query.created_before is None or job.created_at < query.created_before)
        and (query.after is None or _place(job) < query.after)
    )


class MemorySubscription(Subscription):
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def changed(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
