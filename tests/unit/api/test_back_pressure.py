"""A queue that is full refuses jobs, at every door, and says when there may be room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.api.conftest import CATALOG, Api, spec

from forebay.adapters.memory import MemoryLog, MemoryQueue
from forebay.api.back_pressure import FRESH_S, LOOK_EVERY_S, Bounds
from forebay.catalog import Catalog
from forebay.core.errors import TooMany, Unavailable
from forebay.core.event import EventKind
from forebay.core.message import Channel, Message
from forebay.core.model import ModelLimits, ModelStatus
from forebay.core.pace import Pace
from forebay.core.queues import LaneCount
from forebay.ports.fleet import ModelReport

MakeApi = Callable[..., Api]
UUID = "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
PACE = Pace(jobs_per_s=0.25, batches=50, batch_size=1.0, service_s=4.0, service_sd_s=0.0)


async def post(api: Api, path: str = "/v1/jobs", method: str = "POST", **body: Any) -> Any:
    api.clock.now += 0.01
    return await api.http.request(method, path, json=body)


async def submit(api: Api, **fields: Any) -> Any:
    return await post(api, model="echo", input=1, **fields)


def refused(answer: Any) -> bool:
    assert answer.status_code in (202, 429), answer.text
    if answer.status_code == 429:
        assert answer.json()["code"] == "queue_full"
        assert 1 <= int(answer.headers["retry-after"]) <= 600
    return bool(answer.status_code == 429)


async def test_beyond_its_bound_a_lane_refuses_and_the_others_do_not(make_api: MakeApi) -> None:
    api = make_api(max_queue_length=3)
    assert [refused(await submit(api)) for _ in range(5)] == [False, False, False, True, True]
    assert not refused(await submit(api, lane="high"))
    assert not refused(await post(api, model="sentiment", input="good"))
    assert len(api.published) == 5
    assert api.counted("forebay_jobs_rejected_total", code="queue_full") == 2


async def test_a_model_may_have_a_bound_of_its_own(make_api: MakeApi) -> None:
    narrow = spec("narrow", "json", "python", limits=ModelLimits(max_queue_length=1))
    api = make_api(catalog=Catalog(specs={**CATALOG.specs, "narrow": {"1": narrow}}), max_queue_length=3)
    assert [refused(await post(api, model="narrow", input=1)) for _ in range(2)] == [False, True]


async def test_a_lane_of_a_model_may_have_a_bound_of_its_own(make_api: MakeApi) -> None:
    limits = ModelLimits(max_queue_length={"high": 1})
    catalog = Catalog(specs={"narrow": {"1": spec("narrow", "json", "python", limits=limits)}})
    api = make_api(catalog=catalog, max_queue_length=2)
    for lane, most in (("high", 1), ("low", 2)):
        answers = [refused(await post(api, model="narrow", input=1, lane=lane)) for _ in range(3)]
        assert answers == [number >= most for number in range(3)]
    shown = (await api.http.get("/v1/queues")).json()["queues"]
    assert {one["lane"]: one["max_queue_length"] for one in shown} == {"high": 1, "normal": 2, "low": 2}


async def test_what_has_started_makes_room(make_api: MakeApi) -> None:
    api = make_api(max_queue_length=1)
    job_id = (await submit(api)).json()["id"]
    await api.project_published()
    assert refused(await submit(api))
    await api.event(job_id, EventKind.STARTED, attempt=1)
    api.clock.now += FRESH_S
    assert not refused(await submit(api))


async def test_what_other_processes_accepted_counts_too(make_api: MakeApi) -> None:
    api = make_api(max_queue_length=2)
    other = Api(store=api.store)
    for _ in range(2):
        await submit(other)
    await api.project(*[_decoded(message) for message in other.published])
    assert refused(await submit(api))
    await other.http.aclose()


def _decoded(message: Message) -> Any:
    from forebay.core.wire import decode_request

    return decode_request(message)


@pytest.mark.parametrize("most", [0, 1])
async def test_a_caller_may_ask_for_a_short_queue(api: Api, most: int) -> None:
    answers = [refused(await submit(api, max_queue_length=most)) for _ in range(3)]
    assert answers == [number > most for number in range(3)]
    assert not refused(await submit(api))


async def test_every_door_takes_the_field_and_refuses(make_api: MakeApi) -> None:
    api = make_api()
    await submit(api)
    short: dict[str, Any] = {"max_queue_length": 0}
    assert refused(await submit(api, **short))
    assert refused(await post(api, f"/v1/jobs/{UUID}", "PUT", model="echo", input=1, **short))
    assert refused(await post(api, "/inference", model_name="echo", data=1, **short))
    raw = await api.http.post("/v1/models/echo/jobs?max_queue_length=0", json=1)
    assert refused(raw)
    assert len(api.published) == 1
    assert (await submit(api, max_queue_length=-1)).status_code == 422


async def test_a_refused_key_may_come_again(api: Api) -> None:
    await submit(api)
    key = {"idempotency-key": "k"}
    body = {"model": "echo", "input": 1}
    first = await api.http.post("/v1/jobs", json={**body, "max_queue_length": 0}, headers=key)
    assert refused(first)
    second = await api.http.post("/v1/jobs", json={**body, "max_queue_length": 5}, headers=key)
    assert second.status_code == 202
    third = await api.http.post("/v1/jobs", json=body, headers=key)
    assert (third.status_code, third.json()["id"]) == (202, second.json()["id"])
    assert third.headers["idempotency-replayed"] == "true"


async def test_when_to_come_again_is_told_from_the_rate(make_api: MakeApi) -> None:
    api = make_api(max_queue_length=9)
    assert [refused(await submit(api)) for _ in range(9)] == [False] * 9
    await api.project_published()
    api.clock.now += LOOK_EVERY_S
    unknown = await submit(api)
    assert int(unknown.headers["retry-after"]) == 60
    await api.fleet.report(
        ModelReport(worker="w", model="echo", version="2", status=ModelStatus.READY, replicas_ready=1, pace=PACE)
    )
    assert int((await submit(api)).headers["retry-after"]) == 4
    assert int((await submit(api, max_queue_length=2)).headers["retry-after"]) == 28


async def test_a_job_that_was_not_accepted_takes_no_room(make_api: MakeApi) -> None:
    class Away(MemoryQueue):
        away = False

        async def publish(self, channel: Channel, messages: Any) -> None:
            if self.away:
                raise Unavailable("away")
            await super().publish(channel, messages)

    queue = Away(MemoryLog())
    api = make_api(queue=queue, max_queue_length=1)
    queue.away = True
    assert (await submit(api)).status_code == 503
    queue.away = False
    assert not refused(await submit(api))


# ------------------------------------------------------------------------------------------------------------- learning


class Counted:
    """A store that counts how often it is asked."""

    def __init__(self) -> None:
        self.waiting = 0
        self.asked = 0
        self.away = False

    async def queues(self) -> list[LaneCount]:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return [LaneCount(model="m", lane="low", waiting=self.waiting, running=0)]


class Setting:
    def __init__(self, limit: int) -> None:
        self.now = 0.0
        self.lag_s = 0.0
        self.store = Counted()
        self.bounds = Bounds(
            store=self.store,  # type: ignore[arg-type]  # of a store it asks only this
            fleet=self,  # type: ignore[arg-type]  # nor of a fleet
            limits={},
            default=limit,
            monotonic=lambda: self.now,
            lag_s=lambda: self.lag_s,
        )

    async def reports(self) -> list[ModelReport]:
        return []

    async def take(self, count: int) -> int:
        """How many of so many were let in."""
        taken = 0
        for _ in range(count):
            try:
                await self.bounds.take({("m", "low"): 1})
            except TooMany:
                break
            taken += 1
        return taken


async def test_the_store_is_asked_once_a_second_however_much_is_submitted() -> None:
    at = Setting(1000)
    for _ in range(5):
        assert await at.take(100) == 100
        await asyncio.sleep(0)
    assert at.store.asked == 1
    at.now += LOOK_EVERY_S
    await at.take(1)
    await asyncio.sleep(0)
    assert at.store.asked == 2


async def test_what_the_store_cannot_know_yet_is_counted_for_as_long_as_it_is_behind() -> None:
    at = Setting(10)
    assert await at.take(6) == 6
    at.lag_s = 5.0
    for _ in range(3):  # the store is asked, and has seen nothing of it
        at.now += LOOK_EVERY_S
        assert await at.take(1) == 1
        await asyncio.sleep(0)
    assert await at.take(9) == 1
    at.lag_s = 0.0
    at.store.waiting = 4
    at.now += LOOK_EVERY_S
    await at.take(1)
    await asyncio.sleep(0)
    assert await at.take(20) >= 4


async def test_while_the_store_is_away_what_is_accepted_here_is_counted() -> None:
    at = Setting(10)
    at.store.away = True
    let_in = 0
    for _ in range(20):
        at.now += LOOK_EVERY_S
        let_in += await at.take(1)
        await asyncio.sleep(0)
    assert let_in == 10


async def test_nobody_is_refused_for_what_is_old() -> None:
    at = Setting(10)
    at.store.waiting = 10
    assert await at.take(1) == 0
    at.store.waiting = 3
    at.now += FRESH_S
    assert await at.take(20) == 7


async def test_for_a_model_without_a_bound_nobody_is_asked_though_another_has_one(make_api: MakeApi) -> None:
    asked: list[str] = []

    async def away() -> list[LaneCount]:
        asked.append("the store")
        raise Unavailable("no store")

    narrow = spec("narrow", "json", "python", limits=ModelLimits(max_queue_length=1))
    api = make_api(catalog=Catalog(specs={**CATALOG.specs, "narrow": {"1": narrow}}))
    api.store.queues = away  # type: ignore[method-assign]  # of one object
    assert not refused(await submit(api))
    assert not asked
    assert not refused(await post(api, model="narrow", input=1))
    assert asked


async def test_without_a_bound_nobody_is_asked() -> None:
    at = Setting(0)
    assert await at.take(100) == 100
    assert at.store.asked == 0
