"""What a handler emits reaches whoever watches, each chunk once and in order, whoever of us or of them dies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.scenario.conftest import Client, Start, StartRoles

from forebay.testing.service import RunningService

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]
Told = tuple[str, str, Any]
"""Id, name and data of an event."""

CHUNKS, HELD_AT = 60, 30


def told(api: Client, job_id: str, last: str) -> Iterator[Told]:
    """As it comes, behind `last`."""
    with api.http.stream("GET", f"/v1/jobs/{job_id}/events", headers={"last-event-id": last}) as answer:
        assert answer.status_code == 200
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            fields[name] = value
            if name == "data":
                yield fields["id"], fields["event"], json.loads(value)


def chunks(events: list[Told], attempt: int) -> list[Any]:
    """Of this attempt, each where it says that it belongs."""
    found = [data for _, name, data in events if name == "output" and data["attempt"] == attempt]
    assert [data["index"] for data in found] == list(range(len(found)))
    return [data["chunk"] for data in found]


def is_chunk(event: Told, number: int) -> bool:
    return event[1] == "output" and event[2]["index"] == number


def until_chunk(api: Client, job_id: str, seen: list[Told], number: int) -> None:
    """Watch on behind what was seen, until that chunk has come; then the connection is cut."""
    for event in told(api, job_id, seen[-1][0] if seen else ""):
        seen.append(event)
        if is_chunk(event, number):
            return
    raise AssertionError(f"the stream ended before chunk {number}: {seen[-3:]}")


def to_the_end(api: Client, job_id: str, seen: list[Told]) -> None:
    seen += told(api, job_id, seen[-1][0])


def check(seen: list[Told], api: Client, job_id: str) -> None:
    """Of the life of a job whose first worker died while it held."""
    names = [name for _, name, _ in seen if name not in ("output", "progress")]
    assert [name for name in names if name != "queued"] == ["started", "started", "succeeded"]
    assert chunks(seen, 1) == list(range(HELD_AT))
    assert chunks(seen, 2) == list(range(CHUNKS))
    again = next(place for place, (_, name, data) in enumerate(seen) if name == "started" and data["attempts"] == 2)
    assert all(name != "output" or (data["attempt"] == 2) == (n > again) for n, (_, name, data) in enumerate(seen))
    for life in (seen[:again], seen[again:]):
        words = [data["progress"] for _, name, data in life if name == "progress"]
        assert words == sorted(words)
    middle = next(place for place in range(again, len(seen)) if is_chunk(seen[place], HELD_AT))
    rest = list(told(api, job_id, seen[middle][0]))
    assert rest == [event for event in seen[middle + 1 :] if event[1] != "progress"]
    assert api.job(job_id)["output"] == CHUNKS


def test_through_cuts_and_the_death_of_the_service(start: Start, client_of: ClientOf) -> None:
    service = start("talker")
    api = client_of(service)
    job_id = api.submit("talker", {"chunks": CHUNKS, "hold_at": HELD_AT})
    seen: list[Told] = []
    until_chunk(api, job_id, seen, 9)
    until_chunk(api, job_id, seen, HELD_AT - 1)
    assert 0 < api.job(job_id)["progress"] <= 0.5
    service.kill()
    service.start()
    api = client_of(service)
    to_the_end(api, job_id, seen)
    check(seen, api, job_id)


def test_through_cuts_the_death_of_an_api_and_of_a_worker(roles_on_kafka: StartRoles, client_of: ClientOf) -> None:
    roles = roles_on_kafka("talker")
    first, worker = roles.start("api"), roles.spawn("worker")
    second = roles.start("api", "projector")
    worker.wait_ready()
    api, other = client_of(first), client_of(second)
    job_id = api.submit("talker", {"chunks": CHUNKS, "hold_at": HELD_AT})
    seen: list[Told] = []
    until_chunk(api, job_id, seen, 9)
    first.kill()
    until_chunk(other, job_id, seen, HELD_AT - 1)
    worker.kill()
    roles.spawn("worker")
    to_the_end(other, job_id, seen)
    check(seen, other, job_id)
