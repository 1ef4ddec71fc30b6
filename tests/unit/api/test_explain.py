"""What is told of a job that waits, from what the store, the workers and the queue say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.api.conftest import Api

from forebay.adapters.memory import MemoryLog, MemoryQueue
from forebay.api import explaining
from forebay.api.probe import KNOWN_FOR_S
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobError
from forebay.core.message import Channel
from forebay.core.model import ModelStatus
from forebay.core.pace import Pace
from forebay.core.times import from_rfc3339, to_rfc3339
from forebay.ports.fleet import ModelReport

PACE = Pace(jobs_per_s=4.0, batches=50, batch_size=1.0, service_s=0.25, service_sd_s=0.0)


async def explain(api: Api, job_id: str) -> dict[str, Any]:
    answer = await api.http.get(f"/v1/jobs/{job_id}/explain")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def submit(api: Api, count: int, **fields: Any) -> list[str]:
    ids = []
    for _ in range(count):
        api.clock.now += 0.25
        ids.append(await api.submit("echo", 1, **fields))
    await api.project_published()
    return ids


async def ready(api: Api, **facts: Any) -> None:
    facts = {"status": ModelStatus.READY, "replicas_ready": 1, "pace": PACE, **facts}
    await api.fleet.report(ModelReport(worker="w-1", model="echo", version="2", **facts))


async def test_a_job_among_others_is_told_its_position_and_when_it_may_start(api: Api) -> None:
    ids = await submit(api, 10)
    await ready(api)
    await api.event(ids[0], EventKind.STARTED, attempt=1)
    found = await explain(api, ids[8])
    assert (found["id"], found["model"], found["lane"], found["status"]) == (ids[8], "echo", "normal", "queued")
    assert (found["position"], found["position_exact"], found["waiting"]) == (8, True, 9)
    assert found["rate_per_s"] == 4.0
    assert [cause["code"] for cause in found["causes"]] == ["jobs_ahead"]
    start, finish = found["expected_start"], found["expected_finish"]
    assert 1.7 < start["p50_s"] < start["p90_s"] < 2.5
    assert from_rfc3339(start["p50_at"]) == pytest.approx(api.clock.now + start["p50_s"], abs=0.001)
    assert finish["p50_s"] == pytest.approx(start["p50_s"] + 0.25, abs=0.02)


async def test_a_long_lane_is_told_by_time(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explaining, "LOOK", 3)
    ids = await submit(api, 9)
    found = await explain(api, ids[8])
    assert found["position_exact"] is False
    assert found["position"] in (9, 10)


async def test_where_a_lane_has_parts_a_position_is_an_estimate(make_api: Callable[..., Api]) -> None:
    class Parted(MemoryQueue):
        @property
        def features(self) -> Any:
            return type(super().features)(**{**_fields(super().features), "shares_by_message": False})

    api = make_api(queue=Parted(MemoryLog()))
    api.log = api.queue._log  # what it publishes to
    [job_id] = await submit(api, 1)
    assert (await explain(api, job_id))["position_exact"] is False


def _fields(features: Any) -> dict[str, Any]:
    return {name: getattr(features, name) for name in features.__struct_fields__}


async def test_a_retry_tells_when_it_is_due(api: Api) -> None:
    [job_id] = await submit(api, 1)
    await ready(api)
    await api.event(job_id, EventKind.STARTED, attempt=1)
    due_at = api.clock.now + 30.0
    error = JobError(code="not_yet", message="not yet", retryable=True)
    await api.event(job_id, EventKind.QUEUED, attempt=1, error=error, due_at=due_at)
    found = await explain(api, job_id)
    assert found["retry_at"] == to_rfc3339(due_at)
    assert [cause["code"] for cause in found["causes"]] == ["retry_due"]
    assert found["expected_start"]["p50_s"] == 30.0


async def test_a_job_without_a_worker_is_told_so(api: Api) -> None:
    [job_id] = await submit(api, 1)
    found = await explain(api, job_id)
    assert [cause["code"] for cause in found["causes"]] == ["no_worker"]
    assert "expected_start" not in found


async def test_while_the_queue_is_away_that_is_the_cause(make_api: Callable[..., Api]) -> None:
    class Away(MemoryQueue):
        away = False
        asked = 0

        async def depth(self, channel: Channel) -> int:
            self.asked += 1
            if self.away:
                raise Unavailable("broker-7 is away")
            return await super().depth(channel)

    log = MemoryLog()
    queue = Away(log)
    api = make_api(queue=queue)
    api.log = log
    [job_id] = await submit(api, 1)
    for _ in range(5):
        await explain(api, job_id)
    assert queue.asked == 1, "many are told what one has asked"
    queue.away = True
    api.clock.now += KNOWN_FOR_S
    found = await explain(api, job_id)
    assert [cause["code"] for cause in found["causes"]] == ["backend_away"]
    assert "broker-7" not in str(found)


async def test_right_after_acceptance_and_at_the_end_little_is_told(api: Api) -> None:
    job_id = await api.submit("echo", 1)
    found = await explain(api, job_id)
    assert found == {
        "id": job_id,
        "status": "queued",
        "causes": [{"code": "not_visible_yet", "message": "it is accepted, and will be visible in a moment"}],
    }
    await api.project_published()
    await api.succeed(job_id, b"1")
    assert [cause["code"] for cause in (await explain(api, job_id))["causes"]] == ["final"]


async def test_an_unknown_job_and_a_query_are_refused(api: Api) -> None:
    assert (await api.http.get("/v1/jobs/nothing/explain")).status_code == 404
    assert (await api.http.get("/v1/jobs/nothing/explain?wait=3")).status_code == 422
