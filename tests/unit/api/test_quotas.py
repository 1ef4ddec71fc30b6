"""A tenant has no more jobs accepted than its quota says, and hears when there is room again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.api.conftest import TENANT, Api

from forebay.adapters.memory import MemoryLog, MemoryQueue, MemoryQuotas
from forebay.api.metering import LOOK_EVERY_S, QUOTA_KNOWN_FOR_S
from forebay.core.errors import OutcomeUnknown, Unavailable
from forebay.core.event import EventKind
from forebay.core.quota import DAY_S, MINUTE_S, Quota, Use
from forebay.testing.samples import event, request

MakeApi = Callable[..., Api]
JOB = {"model": "echo", "input": 1}


async def submit(api: Api, **headers: str) -> Any:
    return await api.http.post("/v1/jobs", json=JOB, headers=headers)


async def accepted(api: Api, tries: int) -> int:
    return [(await submit(api)).status_code for _ in range(tries)].count(202)


@pytest.mark.parametrize("limit", ["jobs_per_minute", "jobs_per_day", "jobs_outstanding"])
async def test_one_more_than_the_quota_is_refused(make_api: MakeApi, limit: str) -> None:
    api = make_api(default_quota=Quota(**{limit: 3}))
    assert await accepted(api, 3) == 3
    refused = await submit(api)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert "3 jobs" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= refused.json()["retry_after_s"]
    assert len(api.published) == 3
    assert api.counted("forebay_jobs_rejected_total", code="quota_exceeded") == 1


async def test_there_is_room_again_when_it_was_said_to_be(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_minute=2))
    assert await accepted(api, 2) == 2
    wait_s = int((await submit(api)).headers["retry-after"])
    assert wait_s <= MINUTE_S + 1
    api.clock.now += wait_s
    assert await accepted(api, 3) == 2


async def test_a_new_day_has_its_own_quota(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_day=2))
    assert await accepted(api, 3) == 2
    api.clock.now += int((await submit(api)).headers["retry-after"])
    assert api.clock.now % DAY_S < 2
    assert await accepted(api, 3) == 2


async def test_a_quota_of_the_tenants_own_goes_before_the_default(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_minute=1, jobs_per_day=9))
    await api.quotas.put(TENANT, Quota(jobs_per_minute=3))
    assert await accepted(api, 4) == 3
    api.clock.now += 2 * MINUTE_S
    assert await accepted(api, 4) == 3
    api.clock.now += 2 * MINUTE_S
    assert await accepted(api, 4) == 3
    api.clock.now += 2 * MINUTE_S
    assert await accepted(api, 4) == 0  # the default's day is full


async def test_a_changed_quota_is_known_after_a_while(make_api: MakeApi) -> None:
    api = make_api()
    assert await accepted(api, 2) == 2
    await api.quotas.put(TENANT, Quota(jobs_per_day=0))
    api.clock.now += QUOTA_KNOWN_FOR_S / 2
    assert await accepted(api, 1) == 1
    await asyncio.sleep(0)  # what is learned beside that one: no socket here gives it a turn
    assert await accepted(api, 1) == 0


async def test_what_other_processes_accepted_counts(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_day=5))
    theirs = [replace(request(number), tenant=TENANT, accepted_at=api.clock.now) for number in range(4)]
    await api.project(*theirs)
    assert await accepted(api, 3) == 1


async def test_a_job_that_ends_makes_room_for_another(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_outstanding=2))
    await api.project(*(replace(request(number), tenant=TENANT) for number in range(2)))
    assert await accepted(api, 1) == 0
    await api.project(replace(event(0, EventKind.SUCCEEDED), tenant=TENANT))
    api.clock.now += LOOK_EVERY_S
    assert await accepted(api, 2) == 1


async def test_a_copy_of_an_accepted_job_takes_nothing(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_day=1))
    answers = [await submit(api, **{"idempotency-key": "k"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert (await submit(api, **{"idempotency-key": "other"})).status_code == 429
    assert (await submit(api, **{"idempotency-key": "k"})).status_code == 202


class AwayQueue(MemoryQueue):
    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.error: Exception | None = None

    async def publish(self, *arguments: Any) -> None:
        if self.error is not None:
            raise self.error
        await super().publish(*arguments)


@pytest.mark.parametrize(
    ("error", "left"), [(Unavailable("away"), 1), (OutcomeUnknown("who knows", job_id="x"), 0)], ids=["away", "unknown"]
)
async def test_only_what_may_have_been_accepted_counts(make_api: MakeApi, error: Exception, left: int) -> None:
    queue = AwayQueue(MemoryLog())
    api = make_api(queue=queue, default_quota=Quota(jobs_per_day=1))
    queue.error = error
    assert (await submit(api)).status_code == 503
    queue.error = None
    assert await accepted(api, 2) == left


class AwayQuotas(MemoryQuotas):
    async def get(self, tenant: str) -> Quota:
        raise Unavailable("away")


async def test_submitting_goes_on_while_quotas_cannot_be_read(make_api: MakeApi) -> None:
    assert await accepted(make_api(quotas=AwayQuotas()), 2) == 2


async def test_own_jobs_count_while_the_store_is_away(make_api: MakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api = make_api(default_quota=Quota(jobs_per_minute=2))

    async def away(tenant: str, **_: Any) -> Use:
        raise Unavailable("away")

    monkeypatch.setattr(api.store, "used", away)
    assert await accepted(api, 3) == 2


async def test_each_tenant_has_its_own_count(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_day=1))
    await api.project(replace(request(1), tenant="another", accepted_at=api.clock.now))
    assert await accepted(api, 2) == 1


async def test_what_the_store_is_behind_with_counts_all_the_same(make_api: MakeApi) -> None:
    """While no projector runs, what is outstanding would otherwise look like nothing with each new look."""
    api = make_api(default_quota=Quota(jobs_outstanding=2))
    assert await accepted(api, 1) == 1
    for _ in range(3):
        api.clock.now += LOOK_EVERY_S
        api.lag_s += LOOK_EVERY_S
        await accepted(api, 1)
    assert len(api.published) == 2


async def test_while_the_store_is_away_from_the_start_the_default_holds(make_api: MakeApi) -> None:
    assert await accepted(make_api(quotas=AwayQuotas(), default_quota=Quota(jobs_per_minute=2)), 3) == 2


async def test_who_was_idle_is_judged_by_the_quota_of_now(make_api: MakeApi) -> None:
    api = make_api()
    assert await accepted(api, 1) == 1
    await api.quotas.put(TENANT, Quota(jobs_per_day=0))
    api.clock.now += QUOTA_KNOWN_FOR_S
    assert await accepted(api, 1) == 0


async def test_more_at_once_than_there_will_ever_be_room_for_is_told(make_api: MakeApi) -> None:
    api = make_api(default_quota=Quota(jobs_per_minute=2))
    lines = b"\n".join(b'{"input": 1}' for _ in range(3))
    answer = await api.http.post("/v1/batches?model=echo", content=lines, headers={"content-type": "application/jsonl"})
    assert (answer.status_code, answer.json()["code"]) == (422, "quota_too_small")
    assert "3 jobs come at once" in answer.json()["detail"]
    assert [message for message in api.published if "forebay-line" in message.headers] == []
