"""What waits and runs, lane by lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.api.conftest import Api

from forebay.core.event import EventKind
from forebay.core.model import ModelStatus
from forebay.core.pace import Pace
from forebay.ports.fleet import ModelReport

PACE = Pace(
    jobs_per_s=4.0,
    batches=50,
    batch_size=2.0,
    service_s=0.5,
    service_sd_s=0.1,
    finished_per_s={"normal": 1.5, "low": 0.25},
)


async def queues(api: Api) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    answer = await api.http.get("/v1/queues")
    assert answer.status_code == 200
    return {(one.pop("model"), one.pop("lane")): one for one in answer.json()["queues"]}


async def report(api: Api, worker: str, **facts: Any) -> None:
    facts = {"model": "echo", "version": "2", "status": ModelStatus.READY, **facts}
    await api.fleet.report(ModelReport(worker=worker, **facts))


async def test_every_lane_of_every_model_is_shown_the_most_urgent_first(api: Api) -> None:
    shown = await queues(api)
    assert list(shown) == [
        (model, lane) for model in ("echo", "photo", "sentiment") for lane in ("high", "normal", "low")
    ]
    assert all(one == {"waiting": 0, "running": 0, "workers": 0} for one in shown.values())


async def test_what_waits_and_runs_is_counted_and_the_oldest_tells_its_age(api: Api) -> None:
    ids = []
    for lane in ("normal", "normal", "normal", "low"):
        api.clock.now += 0.25
        ids.append(await api.submit("echo", 1, lane=lane))
    await api.project_published()
    await api.event(ids[0], EventKind.STARTED, attempt=1)
    api.clock.now += 2.5
    shown = await queues(api)
    assert shown["echo", "normal"] == {"waiting": 2, "running": 1, "oldest_s": 3.0, "workers": 0}
    assert shown["echo", "low"] == {"waiting": 1, "running": 0, "oldest_s": 2.5, "workers": 0}


async def test_workers_that_are_ready_are_counted_and_their_rates_add_up(api: Api) -> None:
    await report(api, "w-1", pace=PACE)
    await report(api, "w-2", pace=PACE)
    await report(api, "w-3", status=ModelStatus.LOADING)
    shown = await queues(api)
    assert shown["echo", "normal"] == {"waiting": 0, "running": 0, "workers": 2, "rate_per_s": 3.0}
    assert shown["echo", "high"]["rate_per_s"] == 0.0
    assert "rate_per_s" not in shown["photo", "normal"]


async def test_a_model_that_is_gone_is_shown_while_its_jobs_wait(api: Api) -> None:
    await api.submit("echo", 1)
    [message] = api.published
    message.headers["forebay-model"] = "gone"  # type: ignore[index]  # a dict
    await api.project_published()
    assert (await queues(api))["gone", "normal"]["waiting"] == 1


async def test_while_the_store_is_rebuilt_nobody_can_tell(api: Api) -> None:
    async def ends() -> dict[str, str]:
        return {}

    await api.store.begin_rebuild(ends)
    answer = await api.http.get("/v1/queues")
    assert (answer.status_code, answer.json()["code"]) == (503, "rebuilding")
