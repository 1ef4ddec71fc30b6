"""The promises of `ports.outbox`, as tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from msgspec.structs import replace

from forebay.core.delivery import (
    GIVES_UP_AFTER_S,
    DeliveryEvent,
    DeliveryEventKind,
    DeliveryStatus,
    WebhookDelivery,
    delivery_id,
)
from forebay.core.errors import Unavailable
from forebay.core.event import BatchLine, EventKind, JobRequest
from forebay.core.fact import Fact
from forebay.core.job import deletion
from forebay.core.job_batch import BatchEvent, BatchEventKind
from forebay.core.payload import JSON, Payload
from forebay.core.webhook import WebhookEvent, WebhookTarget
from forebay.ports.event_log import START, LogBatch
from forebay.ports.outbox import DeliveryQuery, OutboxCount
from forebay.ports.store import ResultStore
from forebay.testing.samples import TENANT, emitted, event, failed, job_id, request, succeeded

NOW = 1_800_000_000.0
"""The log's time here, far from when the samples say that they were made."""

URL = "https://one.example/hook"
ONE = WebhookTarget(url=URL)
TWO = WebhookTarget(endpoint="ep_2", events=tuple(WebhookEvent))
OUTPUT = Payload(media_type=JSON, data=b'[{"label":"cat"}]')
LIMIT = 100


def told(number: int, *targets: WebhookTarget, tenant: str = TENANT) -> JobRequest:
    return replace(request(number, tenant=tenant), webhooks=targets or (ONE,), logged_at=NOW)


def done(number: int, tenant: str = TENANT) -> Fact:
    return replace(succeeded(number, OUTPUT, tenant=tenant), logged_at=NOW)


def tried(delivery: WebhookDelivery, number: int = 1, **what: Any) -> DeliveryEvent:
    """Delivered, unless `what` says otherwise."""
    return DeliveryEvent(
        **{
            "tenant": delivery.tenant,
            "job_id": delivery.job_id,
            "delivery_id": delivery.id,
            "kind": DeliveryEventKind.TRIED,
            "at": NOW + number,
            "number": number,
            "status": 204,
            "latency_s": 0.25,
            "outcome": DeliveryStatus.DELIVERED,
            **what,
        }
    )


def failed_try(delivery: WebhookDelivery, number: int, next_at: float) -> DeliveryEvent:
    pending = DeliveryStatus.PENDING
    return tried(delivery, number, status=500, code="status", message="500", outcome=pending, next_at=next_at)


def parked(delivery: WebhookDelivery, number: int) -> DeliveryEvent:
    return tried(delivery, number, status=410, code="gone", outcome=DeliveryStatus.PARKED)


def asked(delivery: WebhookDelivery, at: float) -> DeliveryEvent:
    return DeliveryEvent(
        tenant=delivery.tenant,
        job_id=delivery.job_id,
        delivery_id=delivery.id,
        kind=DeliveryEventKind.ASKED,
        at=at,
    )


async def of(store: ResultStore, number: int = 1, tenant: str = TENANT) -> list[WebhookDelivery]:
    return await store.deliveries(tenant, job_id(number), LIMIT)


async def claimed(
    store: ResultStore, now: float = NOW, holder: str = "one", for_s: float = 60.0, **how: Any
) -> list[WebhookDelivery]:
    asked_for = {"limit": LIMIT, "each": LIMIT, **how}
    return await store.claim(now, holder=holder, until=now + for_s, **asked_for)


def types(deliveries: Sequence[WebhookDelivery]) -> list[str]:
    return [one.type for one in deliveries]


@pytest.mark.anyio
class OutboxContract:
    """Mixed into the suite of a store."""

    async def test_each_target_is_told_what_it_asked_for(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1, ONE, TWO), event(1, EventKind.STARTED), emitted(1, "a", "b"), done(1))
        deliveries = await of(store)
        assert sorted((one.type, one.endpoint or one.url) for one in deliveries) == [
            ("job.output", "ep_2"),
            ("job.started", "ep_2"),
            ("job.succeeded", "ep_2"),
            ("job.succeeded", URL),
        ]
        assert {one.status for one in deliveries} == {DeliveryStatus.PENDING}
        assert len({one.id for one in deliveries}) == 4
        bodies = {one.type: json.loads(one.body) for one in await claimed(store)}
        assert bodies["job.succeeded"]["data"]["output"] == [{"label": "cat"}]
        assert bodies["job.succeeded"]["data"]["status"] == "succeeded"
        assert bodies["job.output"]["data"]["chunks"] == ["a", "b"]
        assert (bodies["job.started"]["data"]["status"], bodies["job.started"]["data"]["id"]) == ("running", job_id(1))

    async def test_who_asked_for_nothing_is_told_nothing(self, store: ResultStore, feed: Any) -> None:
        await feed(request(1), event(1, EventKind.STARTED), done(1))
        assert await of(store) == []
        assert await store.outbox() == OutboxCount(pending=0)

    async def test_the_order_in_which_facts_are_read_changes_no_delivery(self, store: ResultStore, feed: Any) -> None:
        """The request comes before or after any of the events, which keep their order; one at a time, and at once."""
        events = [
            event(0, EventKind.STARTED),
            emitted(0, 1),
            event(0, EventKind.QUEUED),
            event(0, EventKind.STARTED, attempt=2),
            emitted(0, 2, attempt=2),
            done(0),
        ]
        tellings = []
        for place in range(len(events) + 1):
            for at_once in (False, True):
                tenant = f"t{place}{at_once}"
                facts = [replace(one, tenant=tenant) for one in events]
                facts.insert(place, told(0, TWO, tenant=tenant))
                if at_once:
                    await feed(*facts)
                else:
                    for fact in facts:
                        await feed(fact)
                found = [one for one in await claimed(store, holder=tenant) if one.tenant == tenant]
                tellings.append(sorted((one.type, one.created_at, one.body) for one in found))
        assert [kind for kind, *_ in tellings[0]] == ["job.output", "job.output", "job.started", "job.succeeded"]
        assert all(telling == tellings[0] for telling in tellings)

    async def test_tries_that_are_read_before_what_they_tried_count(self, store: ResultStore, feed: Any) -> None:
        """As may be in a rebuild."""
        seen = []
        for order in permutations(range(4)):
            tenant = "".join(map(str, order))
            delivery = WebhookDelivery(
                tenant=tenant, job_id=job_id(1), id=delivery_id(tenant, job_id(1), "completed", ONE)
            )
            facts = [
                told(1, tenant=tenant),
                done(1, tenant),
                failed_try(delivery, 1, NOW + 5.0),
                tried(delivery, 2),
            ]
            if order.index(2) < order.index(3):  # events of a job keep their order
                await feed(*(facts[place] for place in order))
                [again] = await of(store, tenant=tenant)
                seen.append((again.type, again.status, again.tried, len(again.tries), again.in_turn, again.next_at))
        assert len(seen) == 12
        assert set(seen) == {("job.succeeded", DeliveryStatus.DELIVERED, 2, 2, 2, None)}

    async def test_one_that_is_held_is_given_to_nobody_else(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        [first] = await claimed(store)
        assert first.body
        assert await claimed(store, NOW + 59.0, "two") == []
        [second] = await claimed(store, NOW + 61.0, "two")  # whoever held it is taken for dead
        assert second == first

    async def test_what_a_try_came_to_is_seen_at_once(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        [mine] = await claimed(store)
        event_ = failed_try(mine, 1, NOW + 9.0)
        await store.settle("one", [event_])
        [shown] = await of(store)
        assert (shown.status, shown.tried, shown.in_turn, shown.next_at) == (DeliveryStatus.PENDING, 1, 1, NOW + 9.0)
        assert [(one.status, one.code, one.latency_s) for one in shown.tries] == [(500, "status", 0.25)]
        assert await claimed(store, NOW + 8.0, "two") == []
        [again] = await claimed(store, NOW + 9.0, "three")
        assert (again.id, again.body) == (mine.id, mine.body)
        await store.settle("three", [tried(again, 2)])
        await feed(event_, tried(again, 2))  # and the projector reads the same of the log
        [shown] = await of(store)
        assert (shown.status, shown.tried, shown.next_at) == (DeliveryStatus.DELIVERED, 2, None)
        assert await claimed(store, NOW + 9999.0, "four") == []

    async def test_who_holds_it_no_more_settles_nothing(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        [mine] = await claimed(store)
        await claimed(store, NOW + 61.0, "two")
        await store.settle("one", [parked(mine, 1)])
        [shown] = await of(store)
        assert (shown.status, shown.tried) == (DeliveryStatus.PENDING, 0)
        await feed(parked(mine, 1))  # the log is where it counts
        [shown] = await of(store)
        assert (shown.status, shown.reason) == (DeliveryStatus.PARKED, "gone")

    async def test_one_that_is_parked_without_a_try_is_shown_so(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        [mine] = await claimed(store)
        parking = tried(mine, 0, kind=DeliveryEventKind.PARKED, code="endpoint_removed", status=None)
        await store.settle("one", [parking])
        await feed(parking)
        [shown] = await of(store)
        assert (shown.status, shown.reason) == (DeliveryStatus.PARKED, "endpoint_removed")
        assert (shown.tried, shown.tries) == (0, ())

    async def test_what_is_given_back_is_due_again(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        mine = await claimed(store)
        await store.give_back("one")
        assert await claimed(store, holder="two") == mine

    async def test_one_receiver_takes_nobodys_turn(self, store: ResultStore, feed: Any) -> None:
        slow, other = WebhookTarget(url="https://slow.example/a"), WebhookTarget(url="https://other.example/b")
        await feed(*(told(n, slow) for n in range(50)), *(done(n) for n in range(50)))
        await feed(told(50, other), done(50), told(51, TWO), done(51))
        found = await claimed(store, each=3)
        slow_ones = ["default slow.example"] * 3
        assert sorted(one.receiver for one in found) == ["default other.example", *slow_ones, "ep_2"]
        more = await claimed(store, holder="two", each=LIMIT, without=["default slow.example"])
        assert more == []
        chosen = ["default other.example", "ep_9"]
        [one] = await claimed(store, NOW + 61.0, "four", only=chosen)
        assert one.receiver == "default other.example"
        assert len(await claimed(store, holder="three", limit=5)) == 5

    async def test_the_longest_due_goes_first(self, store: ResultStore, feed: Any) -> None:
        await feed(*(replace(told(n), logged_at=NOW) for n in range(3)))
        for number, at in ((2, 1.0), (0, 2.0), (1, 3.0)):
            await feed(replace(succeeded(number, OUTPUT), logged_at=NOW + at))
        assert await claimed(store, NOW + 0.5) == []
        first = await claimed(store, NOW + 9.0, limit=2)
        assert [one.job_id for one in first] == [job_id(2), job_id(0)]

    async def test_one_that_was_asked_for_is_due_again(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        [known] = await claimed(store)
        await store.settle("one", [parked(known, 1)])
        await feed(parked(known, 1), asked(known, NOW + 50.0))
        [again] = await claimed(store, NOW + 50.0, "two")
        assert (again.id, again.body, again.in_turn, again.tried) == (known.id, known.body, 0, 1)
        assert (again.since, again.reason) == (NOW + 50.0, "")

    async def test_one_that_waited_too_long_can_be_told(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        end = NOW + GIVES_UP_AFTER_S
        assert await store.claim_late(end - 1.0, holder="one", until=end, limit=9) == []
        [late] = await store.claim_late(end, holder="one", until=end + 60.0, limit=9)
        assert await claimed(store, end, "two") == []
        await store.settle("one", [parked(late, 1)])
        assert await store.claim_late(end + 99.0, holder="two", until=end + 200.0, limit=9) == []

    async def test_a_deleted_job_is_still_told_of(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1, ONE, TWO), done(1))
        both = await claimed(store)
        delivered, pending = sorted(both, key=lambda one: one.endpoint)
        await store.settle("one", [tried(delivered)])
        job = await store.get(TENANT, job_id(1))
        assert job is not None
        [tombstone] = await feed(replace(deletion(job, NOW + 5.0), logged_at=NOW + 5.0))
        assert [one.id for one in await of(store)] == [pending.id]
        assert await store.unswept(9) == []  # what it was made of may be needed for a rebuild
        [again] = await claimed(store, NOW + 61.0, "two")
        assert again.body == pending.body
        await store.settle("two", [tried(again)])
        assert [one.id for one in await store.unswept(9)] == [tombstone.id]
        await store.swept([tombstone])
        await store.forget([tombstone])
        assert await of(store) == []

    async def test_the_parts_in_which_a_deletion_is_read_change_no_delivery(
        self, store: ResultStore, feed: Any
    ) -> None:
        """What is pending stays, with its body; what is settled goes, whether before the deletion or behind it."""
        tellings = []
        for size in (1, 2, 3, 4, 7):
            tenant = f"t{size}"

            def delivery(about: str, target: WebhookTarget, tenant: str = tenant) -> WebhookDelivery:
                of_job = delivery_id(tenant, job_id(1), about, target)
                return WebhookDelivery(tenant=tenant, job_id=job_id(1), id=of_job)

            facts = [
                replace(event(1, EventKind.STARTED), tenant=tenant),
                done(1, tenant),
                told(1, ONE, TWO, tenant=tenant),
                tried(delivery("completed", ONE)),
                replace(event(1, EventKind.DELETED, attempt=0), tenant=tenant, logged_at=NOW + 5.0),
                tried(delivery("started", TWO)),
                failed_try(delivery("completed", TWO), 1, NOW + 9.0),
            ]
            for start in range(0, len(facts), size):
                await feed(*facts[start : start + size])
            [pending] = [one for one in await claimed(store, NOW + 9.0, tenant) if one.tenant == tenant]
            assert await of(store, tenant=tenant) == [replace(pending, body=b"")]
            tellings.append((pending.type, pending.tried, pending.body))
        assert json.loads(tellings[0][2])["data"]["output"] == [{"label": "cat"}]
        assert tellings == tellings[:1] * len(tellings)

    async def test_a_batch_is_told_of_when_its_last_job_is_final(self, store: ResultStore, feed: Any) -> None:
        batch = job_id(90)

        def said(kind: BatchEventKind, **what: Any) -> BatchEvent:
            return BatchEvent(tenant=TENANT, batch_id=batch, kind=kind, at=NOW - 9.0, **what)

        lines = [replace(request(n), line=BatchLine(batch_id=batch, number=n)) for n in (1, 2)]
        opened = said(BatchEventKind.OPENED, webhooks=(ONE,))
        facts = [opened, *lines, said(BatchEventKind.LINES, lines=2, accepted=2), said(BatchEventKind.SEALED, lines=2)]
        await feed(*facts, done(1))
        assert await store.deliveries(TENANT, batch, LIMIT) == []
        await feed(failed(2))
        [delivery] = await claimed(store, NOW + 1.0)
        assert (delivery.type, delivery.job_id, delivery.url) == ("batch.completed", batch, URL)
        counts = json.loads(delivery.body)["data"]["counts"]
        assert counts == {"total": 2, "rejected": 0, "succeeded": 1, "failed": 1, "canceled": 0, "expired": 0}
        await feed(said(BatchEventKind.CANCELED))
        assert len(await store.deliveries(TENANT, batch, LIMIT)) == 1

    async def test_deliveries_of_a_tenant_are_listed(self, store: ResultStore, feed: Any) -> None:
        await feed(*(told(n, TWO) for n in range(5)), *(failed(n) for n in range(5)), told(9, tenant="other"))
        await feed(failed(9, tenant="other"))
        [third] = await of(store, 3)
        await feed(parked(third, 1))
        query = DeliveryQuery(tenant=TENANT, limit=2, look=LIMIT)
        seen: list[str] = []
        page = await store.list_deliveries(query)
        while True:
            seen += [one.job_id for one in page.deliveries]
            assert all(one.body == b"" for one in page.deliveries)
            if page.next is None:
                break
            page = await store.list_deliveries(replace(query, after=page.next))
        assert seen == [job_id(n) for n in range(5)]
        of_status = await store.list_deliveries(replace(query, status=DeliveryStatus.PARKED))
        assert [(one.job_id, one.reason) for one in of_status.deliveries] == [(job_id(3), "gone")]
        late = await store.list_deliveries(replace(query, since=third.created_at, limit=9))
        assert [one.job_id for one in late.deliveries] == [job_id(3), job_id(4)]
        assert (await store.list_deliveries(replace(query, endpoint="ep_9"))).deliveries == []

    async def test_how_many_wait_is_counted(self, store: ResultStore, feed: Any) -> None:
        await feed(*(told(n) for n in range(3)), *(done(n) for n in range(3)))
        assert await store.outbox() == OutboxCount(pending=3, due_at=NOW)
        await feed(parked((await of(store, 1))[0], 1))
        assert await store.outbox() == OutboxCount(pending=2, due_at=NOW)

    async def test_another_tenant_sees_none(self, store: ResultStore, feed: Any) -> None:
        await feed(told(1), done(1))
        [known] = await of(store)
        assert await of(store, tenant="other") == []
        assert await store.delivery("other", job_id(1), known.id) is None
        found = await store.delivery(TENANT, job_id(1), known.id)
        assert found is not None
        assert (found.id, found.body != b"") == (known.id, True)

    async def test_nobody_is_told_while_a_rebuild_is_under_way(self, store: ResultStore, feed: Any) -> None:
        facts = [told(1), done(1), told(2), done(2)]
        await feed(*facts)
        [known] = await of(store)
        before = [replace(one, body=b"") for one in await claimed(store)]
        settled = tried(known)
        await store.settle("one", [settled])
        after = [await of(store, n) for n in (1, 2)]
        await store.begin_rebuild(_no_ends)
        for call in (claimed(store), of(store), store.outbox(), store.settle("one", [])):
            with pytest.raises(Unavailable) as refused:
                await call
            assert refused.value.code == "rebuilding"
        await store.project([LogBatch(source="log", start=START, end="9", facts=(*facts, settled))])
        await store.end_rebuild()
        assert [await of(store, n) for n in (1, 2)] == after
        assert [one.id for one in await claimed(store, NOW + 999.0, "two")] == [
            one.id for one in before if one.id != known.id
        ]


async def _no_ends() -> dict[str, str]:
    return {}
