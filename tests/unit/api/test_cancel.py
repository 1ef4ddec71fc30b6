"""Cancelling: the answer tells the state that won."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.api.conftest import TENANT, Api

from forebay.adapters.memory import MemoryEventLog, MemoryLog
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.wire import decode, decode_event

MakeApi = Callable[..., Api]


def canceled_events(api: Api) -> list[JobEvent]:
    return [decode_event(one) for one in api.published if one.headers["ce_type"] == "io.forebay.job.canceled.v1"]


async def projecting(api: Api) -> None:
    """The projector's part, while somebody waits."""
    await api.project(*map(decode, api.published))


async def test_a_job_that_waits_is_canceled_at_once(api: Api) -> None:
    job_id = await api.submit()
    api.store.during = lambda: projecting(api)
    answer = await api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert (TENANT, job_id) in api.cancellations.heard
    [event] = canceled_events(api)
    assert (event.tenant, event.job_id, event.attempt) == (TENANT, job_id, 0)


async def test_of_a_job_that_runs_the_attempts_stay_true(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=2)
    api.store.during = lambda: projecting(api)
    job = (await api.http.post(f"/v1/jobs/{job_id}/cancel")).json()
    assert (job["status"], job["attempts"]) == ("canceled", 2)


async def test_a_job_that_has_ended_keeps_its_state_and_nothing_is_published(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id)
    answer = await api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert canceled_events(api) == []


async def test_whichever_comes_first_in_the_log_wins(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()

    async def first_a_result() -> None:
        await api.succeed(job_id)
        await projecting(api)

    api.store.during = first_a_result
    answer = await api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


async def test_while_the_store_is_behind_nothing_is_promised(api: Api) -> None:
    job_id = await api.submit()
    answer = await api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["retry-after"] == "1"


async def test_whoever_may_cancel_sees_no_output(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id)
    assert "output" not in (await api.http.post(f"/v1/jobs/{job_id}/cancel")).json()


async def test_canceling_again_is_harmless(api: Api) -> None:
    job_id = await api.submit()
    api.store.during = lambda: projecting(api)
    answers = [await api.http.post(f"/v1/jobs/{job_id}/cancel") for _ in range(2)]
    assert [(one.status_code, one.json()["status"]) for one in answers] == [(200, "canceled")] * 2
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("whose", ["nobody's", "another tenant's"])
async def test_an_id_that_is_none_of_theirs_is_unknown(api: Api, whose: str) -> None:
    job_id = api.mint.issue("somebody else", api.clock.now) if whose == "another tenant's" else "x"
    answer = await api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")
    assert api.published == []


async def test_it_takes_nothing_in_its_query(api: Api) -> None:
    answer = await api.http.post(f"/v1/jobs/{await api.submit()}/cancel", params={"force": "1"})
    assert answer.status_code == 422
    assert canceled_events(api) == []


class AwayLog(MemoryEventLog):
    async def publish(self, events: object) -> None:
        raise Unavailable("the log is away", retry_after_s=2.0)


class SilentLog(MemoryEventLog):
    async def publish(self, events: object) -> None:
        await asyncio.Event().wait()


@pytest.mark.parametrize("log", [AwayLog, SilentLog])
async def test_without_the_log_it_is_a_503_and_no_worker_is_told(
    make_api: MakeApi, log: Callable[[MemoryLog], MemoryEventLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.api.cancel.LOGGED_WITHIN_S", 0.01)
    api = make_api(events=log(MemoryLog()))
    job_id = await api.submit()
    answer = await api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert (TENANT, job_id) not in api.cancellations.heard


async def test_the_job_object_says_where(api: Api) -> None:
    job_id = await api.submit()
    urls = (await api.http.get(f"/v1/jobs/{job_id}")).json()["urls"]
    assert urls["cancel"] == f"/v1/jobs/{job_id}/cancel"
