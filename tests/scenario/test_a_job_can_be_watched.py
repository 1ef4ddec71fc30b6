"""Server-sent events come as they happen, and go on at another API process; on both backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2
import pytest
from tests.scenario.conftest import Client, Start, StartRoles

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]


def events(api: Client, job_id: str, last: str = "") -> Iterator[tuple[str, str]]:
    """(id, event) of each, as soon as it comes."""
    headers = {"last-event-id": last} if last else {}
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code in (200, 204)
        event_id = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                event_id = value
            elif name == "event":
                yield event_id, value


def test_each_state_comes_while_the_job_goes_on(start: Start, client_of: ClientOf) -> None:
    api = client_of(start("troublesome"))
    job_id = api.submit("troublesome", {"harm": "hang"})
    seen = []
    for _, name in events(api, job_id):
        seen.append(name)
        if name == "started":
            api.http.post(f"/v1/jobs/{job_id}/cancel")
    assert seen in (["started", "canceled"], ["queued", "started", "canceled"])


def test_a_stream_goes_on_at_another_api_when_its_own_dies(roles_on_kafka: StartRoles, client_of: ClientOf) -> None:
    roles = roles_on_kafka("troublesome")
    first, second = roles.start("api"), roles.start("api")
    roles.start("projector", "worker")
    api, other = client_of(first), client_of(second)
    job_id = api.submit("troublesome", {"harm": "hang"})
    seen: list[tuple[str, str]] = []

    def watch() -> None:
        for event in events(api, job_id):
            seen.append(event)
            if event[1] == "started":
                first.kill()

    with pytest.raises(httpx2.TransportError):
        watch()
    told = events(other, job_id, seen[-1][0])
    assert other.http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "canceled"
    [(end, name)] = told
    assert name == "canceled"
    assert list(events(other, job_id, end)) == []
