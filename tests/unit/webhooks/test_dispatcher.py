"""What the dispatcher makes of each answer, on the memory adapters, with every clock in hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from forebay.adapters.memory import MemoryEventLog, MemoryLog, MemoryStore, MemoryWebhookEndpoints
from forebay.core.delivery import GIVES_UP_AFTER_S, DeliveryStatus, WebhookDelivery
from forebay.core.errors import Unavailable
from forebay.core.fact import Event
from forebay.core.webhook import WebhookTarget
from forebay.core.webhook_endpoint import HeldSecret, WebhookEndpoint, rotated
from forebay.core.webhook_secret import new_secret, verify
from forebay.core.wire import encode_request
from forebay.projector import Projector
from forebay.telemetry.metrics import Metrics
from forebay.testing.clock import HandClock
from forebay.testing.samples import TENANT, failed, job_id, request
from forebay.webhooks import dispatcher as dispatcher_module
from forebay.webhooks.destinations import Destinations
from forebay.webhooks.dispatcher import Dispatcher, DispatcherPlan
from forebay.webhooks.receivers import Receivers
from forebay.webhooks.schedule import DELAYS_S
from forebay.webhooks.sender import Reply, SendFailed

URL = "https://one.example/hook"
LONG_S = 30.0
DAY_S = 86_400.0
Answer = Callable[[str], Reply | Exception]


def reply(status: int, retry_after_s: float | None = None) -> Reply:
    return Reply(status, retry_after_s, 0.25)


class Post:
    """What was sent, and what a receiver of an address says of it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Mapping[str, str], bytes]] = []
        self.answer: Answer = lambda url: reply(204)
        self.hold = asyncio.Event()
        self.hold.set()
        self._came = asyncio.Condition()

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(LONG_S), self._came:
            await self._came.wait_for(lambda: len(self.sent) >= count)

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.sent.append((url, dict(headers), body))
        async with self._came:
            self._came.notify_all()
        if "quick" not in url:
            await self.hold.wait()
        answer = self.answer(url)
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.log = MemoryLog(wall=self.clock, elapsed=self.clock)
        self.events = MemoryEventLog(self.log)
        self.store = MemoryStore()
        self.endpoints = MemoryWebhookEndpoints()
        self.metrics = Metrics()
        self.post = Post()
        self.projector = Projector(self.events, self.store, self.metrics, self.clock)

    @asynccontextmanager
    async def dispatcher(self, holder: str = "one", events: Any = None) -> AsyncIterator[Dispatcher]:
        dispatcher = Dispatcher(
            DispatcherPlan(holder=holder, look_every_s=0.005),
            outbox=self.store,
            events=events or self.events,
            destinations=Destinations(
                self.endpoints,
                self.metrics,
                disable_after_s=3 * DAY_S,
                clock=self.clock,
                monotonic=self.clock,
                random_bytes=lambda count: bytes(count),
            ),
            sender=self.post,
            receivers=Receivers(lambda: 0.5),
            metrics=self.metrics,
            clock=self.clock,
            monotonic=self.clock,
            random=lambda: 0.5,
        )
        projecting = asyncio.create_task(self.projector.run())
        running = asyncio.create_task(dispatcher.run())
        yield dispatcher
        dispatcher.stop()
        self.projector.stop()
        await asyncio.wait_for(asyncio.gather(running, projecting), LONG_S)

    async def job(self, number: int, *targets: WebhookTarget) -> None:
        """A job that has failed."""
        told = replace(request(number), webhooks=targets or (WebhookTarget(url=URL),))
        self.log.append([encode_request(told)])
        await self.events.publish([failed(number)])

    async def deliveries(self, number: int = 1) -> Sequence[WebhookDelivery]:
        return await self.store.deliveries(TENANT, job_id(number), 99)

    async def until(self, is_so: Callable[[WebhookDelivery], bool], number: int = 1) -> WebhookDelivery:
        """The first delivery of the job, once it is so."""
        deadline = time.monotonic() + LONG_S
        while True:
            found = await self.deliveries(number)
            if found and is_so(found[0]):
                return found[0]
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.002)

    async def until_tried(self, times: int, number: int = 1) -> WebhookDelivery:
        return await self.until(lambda one: one.tried == times, number)

    async def endpoint(self, **facts: Any) -> WebhookTarget:
        endpoint = WebhookEndpoint(
            **{
                "id": "ep_1",
                "tenant": TENANT,
                "url": "https://endpoint.example/",
                "secrets": (HeldSecret(secret=SECRET),),
                "created_at": 1.0,
                **facts,
            }
        )
        await self.endpoints.add(endpoint)
        return WebhookTarget(endpoint=endpoint.id)


SECRET = new_secret(lambda count: b"s" * count)
OTHER = new_secret(lambda count: b"o" * count)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_a_good_answer_delivers(world: World, status: int) -> None:
    world.post.answer = lambda url: reply(status)
    await world.job(1)
    async with world.dispatcher():
        shown = await world.until(lambda one: one.status is DeliveryStatus.DELIVERED)
    assert [(one.number, one.status, one.code) for one in shown.tries] == [(1, status, "")]
    assert len(world.post.sent) == 1


async def test_it_is_signed_with_the_tenants_secret_and_verifies(world: World) -> None:
    await world.job(1)
    async with world.dispatcher():
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED)
    [(url, headers, body)] = world.post.sent
    itself = await world.endpoints.itself(TENANT, lambda: pytest.fail("it was made at the first use"))
    payload = verify(body, headers, [itself.secrets[0].secret], world.clock.now)
    assert (url, payload["type"], payload["data"]["id"]) == (URL, "job.failed", job_id(1))


@pytest.mark.parametrize("answer", [reply(500), reply(301), reply(400), SendFailed("timeout", "no answer")])
async def test_anything_else_is_tried_ten_times_and_then_parked(world: World, answer: Reply | Exception) -> None:
    world.post.answer = lambda url: answer
    await world.job(1)
    async with world.dispatcher():
        for tries, delay_s in enumerate(DELAYS_S, start=1):
            shown = await world.until_tried(tries)
            assert shown.next_at == pytest.approx(world.clock.now + delay_s)
            world.clock.advance(delay_s)
        shown = await world.until(lambda one: one.status is DeliveryStatus.PARKED)
    assert (shown.tried, shown.next_at) == (10, None)
    assert shown.reason == (answer.code if isinstance(answer, SendFailed) else "status")
    assert len({(headers["webhook-id"], body) for _, headers, body in world.post.sent}) == 1
    stamps = [int(headers["webhook-timestamp"]) for _, headers, _ in world.post.sent]
    assert stamps == sorted(set(stamps)), "each try has a time of its own"


async def test_a_receiver_that_is_gone_is_not_called_again(world: World) -> None:
    world.post.answer = lambda url: reply(410)
    await world.job(1)
    async with world.dispatcher():
        shown = await world.until(lambda one: one.status is DeliveryStatus.PARKED)
    assert (shown.reason, shown.tried) == ("gone", 1)


async def test_an_endpoint_that_is_gone_is_disabled_and_what_waits_for_it_is_parked(world: World) -> None:
    target = await world.endpoint()
    world.post.answer = lambda url: reply(410)
    await world.job(1, target)
    async with world.dispatcher():
        await world.until(lambda one: one.status is DeliveryStatus.PARKED)
        await world.job(2, target)
        shown = await world.until(lambda one: one.status is DeliveryStatus.PARKED, 2)
    assert (shown.reason, shown.tried) == ("endpoint_disabled", 0)
    endpoint = await world.endpoints.get(TENANT, "ep_1")
    assert endpoint is not None
    assert "410" in endpoint.disabled_reason
    assert len(world.post.sent) == 1


async def test_an_endpoint_that_answers_nothing_well_for_days_is_disabled(world: World) -> None:
    target = await world.endpoint()
    world.post.answer = lambda url: reply(500)
    await world.job(1, target)
    async with world.dispatcher():
        for tries, delay_s in enumerate(DELAYS_S, start=1):
            await world.until_tried(tries)
            world.clock.advance(delay_s)
        await world.until(lambda one: one.status is DeliveryStatus.PARKED)
    endpoint = await world.endpoints.get(TENANT, "ep_1")
    assert endpoint is not None
    assert endpoint.disabled_at == pytest.approx(world.clock.now)
    assert "3.1 days" in endpoint.disabled_reason


async def test_one_good_answer_forgives_an_endpoint(world: World) -> None:
    target = await world.endpoint()
    world.post.answer = lambda url: reply(500)
    await world.job(1, target)
    async with world.dispatcher():
        await world.until_tried(1)
        world.post.answer = lambda url: reply(200)
        world.clock.advance(DELAYS_S[0])
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED)
    endpoint = await world.endpoints.get(TENANT, "ep_1")
    assert endpoint is not None
    assert endpoint.failing_since is None


async def test_an_endpoint_that_was_removed_is_not_called(world: World) -> None:
    await world.job(1, WebhookTarget(endpoint="ep_0"))
    async with world.dispatcher():
        shown = await world.until(lambda one: one.status is DeliveryStatus.PARKED)
    assert (shown.reason, world.post.sent) == ("endpoint_removed", [])


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_asks_for_time_gets_it(world: World, status: int) -> None:
    world.post.answer = lambda url: reply(status, retry_after_s=100.0)
    await world.job(1)
    async with world.dispatcher():
        shown = await world.until_tried(1)
        assert shown.next_at == pytest.approx(world.clock.now + 100.0)
        await world.job(2)  # of the same receiver: it rests
        world.clock.advance(99.0)
        await world.until(lambda one: True, 2)
        assert len(world.post.sent) == 1
        world.clock.advance(1.0)
        await world.until_tried(1, 2)


async def test_while_a_secret_changes_both_sign(world: World) -> None:
    target = await world.endpoint()
    await world.endpoints.change(TENANT, "ep_1", lambda one: rotated(one, OTHER, world.clock.now, 3600.0))
    async with world.dispatcher():
        await world.job(1, target)
        await world.until_tried(1)
        world.clock.advance(3601.0)
        await world.job(2, target)
        await world.until_tried(1, 2)
    (_, first, body), (_, second, other) = world.post.sent
    stamp = int(first["webhook-timestamp"])
    for secret in (SECRET, OTHER):
        assert verify(body, first, [secret], stamp)["type"] == "job.failed"
    assert len(second["webhook-signature"].split(" ")) == 1
    assert verify(other, second, [OTHER], int(second["webhook-timestamp"]))


async def test_two_dispatchers_send_nothing_twice(world: World) -> None:
    for number in range(50):
        await world.job(number, WebhookTarget(url=f"https://{number % 7}.example/"))
    async with world.dispatcher("one"), world.dispatcher("two"):
        for number in range(50):
            await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, number)
    ids = [headers["webhook-id"] for _, headers, _ in world.post.sent]
    assert len(ids) == len(set(ids)) == 50


async def test_slow_receivers_delay_no_other(world: World) -> None:
    world.post.hold.clear()
    for number in range(200):
        await world.job(number, WebhookTarget(url=f"https://slow{number % 50}.example/"))
    async with world.dispatcher():
        await world.post.until_sent(100)  # two of each
        for number in (998, 999):
            await world.job(number, WebhookTarget(url="https://quick.example/"))
            await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, number)
        assert sum("slow" in url for url, *_ in world.post.sent) == 100
        world.post.hold.set()
        for number in range(200):
            await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, number)


async def test_however_many_are_slow_some_turns_are_left_to_receivers_that_answer(world: World) -> None:
    await world.job(998, WebhookTarget(url="https://quick.example/"))
    async with world.dispatcher():
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, 998)
        world.post.hold.clear()
        for number in range(200):
            await world.job(number, WebhookTarget(url=f"https://slow{number}.example/"))
        await world.post.until_sent(129)
        await world.job(999, WebhookTarget(url="https://quick.example/"))
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, 999)
        assert sum("slow" in url for url, *_ in world.post.sent) == 128
        world.post.hold.set()


async def test_however_much_waits_for_receivers_that_answer_a_new_one_has_its_turn(world: World) -> None:
    for number in range(20):
        await world.job(number, WebhookTarget(url=f"https://good{number}.example/"))
    async with world.dispatcher():
        for number in range(20, 620):  # after which each has a wide window
            await world.job(number, WebhookTarget(url=f"https://good{number % 20}.example/"))
        for number in range(620):
            await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, number)
        world.post.hold.clear()
        for number in range(620, 1500):
            await world.job(number, WebhookTarget(url=f"https://good{number % 20}.example/"))
        await world.until(lambda one: True, 1499)
        await world.job(1500, WebhookTarget(url="https://quick.example/"))
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, 1500)
        world.post.hold.set()


async def test_one_that_had_no_turn_for_too_long_is_parked_without_a_try(world: World) -> None:
    await world.job(1)
    projecting = asyncio.create_task(world.projector.run())
    await world.until(lambda one: True)
    projecting.cancel()
    world.clock.advance(GIVES_UP_AFTER_S)
    async with world.dispatcher():
        shown = await world.until(lambda one: one.status is DeliveryStatus.PARKED)
    assert (shown.reason, shown.tried, world.post.sent) == ("no_turn", 0, [])


async def test_what_cannot_be_sent_for_a_fault_of_ours_is_tried_again_and_harms_no_other(world: World) -> None:
    broken = await world.endpoint(secrets=(HeldSecret(secret="no secret"),))
    await world.job(1, broken)
    await world.job(2)
    async with world.dispatcher():
        shown = await world.until_tried(1)
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, 2)
    assert (shown.status, shown.tries[0].code) == (DeliveryStatus.PENDING, "internal")


async def test_what_cannot_be_said_of_an_endpoint_costs_no_delivery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await world.endpoint(failing_since=1.0)

    async def away(*arguments: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(world.endpoints, "change", away)
    for number in range(10):
        await world.job(number, target)
    async with world.dispatcher():
        for number in range(10):
            await world.until(lambda one: one.status is DeliveryStatus.DELIVERED, number)
    assert len(world.post.sent) == 10


async def test_an_endpoint_that_has_moved_is_not_disabled_for_its_old_address(world: World) -> None:
    target = await world.endpoint()
    world.post.answer = lambda url: reply(410)
    world.post.hold.clear()
    await world.job(1, target)
    async with world.dispatcher():
        await world.post.until_sent(1)
        await world.endpoints.change(TENANT, "ep_1", lambda one: replace(one, url="https://new.example/"))
        world.post.hold.set()
        await world.until(lambda one: one.status is DeliveryStatus.PARKED)
    endpoint = await world.endpoints.get(TENANT, "ep_1")
    assert endpoint is not None
    assert endpoint.disabled_at is None


async def test_while_the_outbox_is_away_nothing_is_said_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settle, refusals = world.store.settle, iter(range(3))

    async def away(holder: str, events: Sequence[Any]) -> None:
        if next(refusals, None) is not None:
            raise Unavailable("rebuilding", retry_after_s=0.005)
        await settle(holder, events)

    monkeypatch.setattr(dispatcher_module, "AWAY_S", 0.005)
    monkeypatch.setattr(world.store, "settle", away)
    await world.job(1)
    async with world.dispatcher():
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED)
        await asyncio.sleep(0.1)  # longer than three refusals take
    assert sum("delivery" in message.headers["ce_type"] for message in world.log.messages) == 1


class AwayLog(MemoryEventLog):
    """Takes nothing while it is away."""

    away = True

    async def publish(self, events: Sequence[Event]) -> None:
        if self.away:
            raise Unavailable("away", retry_after_s=0.005)
        await super().publish(events)


async def test_while_the_log_is_away_what_was_sent_is_kept_in_mind_and_not_sent_again(world: World) -> None:
    events = AwayLog(world.log)
    await world.job(1)
    async with world.dispatcher(events=events):
        await world.post.until_sent(1)
        await asyncio.sleep(0.05)
        assert [one.tried for one in await world.deliveries()] == [0]
        events.away = False
        await world.until(lambda one: one.status is DeliveryStatus.DELIVERED)
    assert len(world.post.sent) == 1


async def test_a_stop_waits_for_what_is_under_way(world: World) -> None:
    world.post.hold.clear()
    await world.job(1)
    async with world.dispatcher() as dispatcher:
        await world.post.until_sent(1)
        dispatcher.stop()
        world.post.hold.set()
    [shown] = await world.deliveries()
    assert shown.status is DeliveryStatus.DELIVERED
