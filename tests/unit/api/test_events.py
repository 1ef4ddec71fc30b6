"""Server-sent events of a job, and entity tags of its output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.api.conftest import Api

from forebay.api import events
from forebay.api.etags import matches
from forebay.api.events import STREAM_S
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind
from forebay.core.payload import JSON, TEXT, Payload
from forebay.core.wire import canonical_json


def read(text: str) -> Iterator[tuple[str, str, Any]]:
    """(id, event, data) of each event; comments and `retry` are left out."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith((":", "retry")))
        if fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])


def one_after_the_other(api: Api, *steps: Any) -> None:
    """Each wait of a reader sees one more of these happen."""
    left = iter(steps)

    async def step() -> None:
        if (happen := next(left, None)) is not None:
            await happen()

    api.store.during = step


async def test_a_stream_tells_each_state_and_ends_with_the_job(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    one_after_the_other(
        api,
        lambda: api.event(job_id, EventKind.STARTED, attempt=1),
        lambda: api.event(job_id, EventKind.QUEUED, attempt=1),
        lambda: api.event(job_id, EventKind.STARTED, attempt=2),
        lambda: api.succeed(job_id),
    )
    answer = await api.http.get(f"/v1/jobs/{job_id}/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.startswith("retry: 1000\n\n")
    events = list(read(answer.text))
    assert [name for _, name, _ in events] == ["queued", "started", "queued", "started", "succeeded"]
    assert [data["status"] for _, _, data in events] == ["queued", "running", "queued", "running", "succeeded"]
    assert all(data["id"] == job_id and "output" not in data for _, _, data in events)


async def test_whoever_comes_again_goes_on_behind_what_came(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=1)
    one_after_the_other(api, lambda: api.succeed(job_id))
    whole = list(read((await api.http.get(f"/v1/jobs/{job_id}/events")).text))
    assert [name for _, name, _ in whole] == ["started", "succeeded"]
    for place, (last, _, _) in enumerate(whole):
        answer = await api.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": last})
        assert answer.status_code == (200 if place == 0 else 204)
        assert list(read(answer.text)) == whole[place + 1 :]


@pytest.mark.parametrize("last", ["", "x", "1", "2.3", "-1.0", "0." + "9" * 20])
async def test_an_event_id_that_is_none_of_ours_counts_as_none(api: Api, last: str) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id)
    answer = await api.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": last})
    assert [name for _, name, _ in read(answer.text)] == ["succeeded"]


async def test_a_job_canceled_while_it_waited_for_its_first_attempt_has_an_end(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    one_after_the_other(api, lambda: api.event(job_id, EventKind.CANCELED))
    answer = await api.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": "0.0"})
    assert [(event_id, name) for event_id, name, _ in read(answer.text)] == [("1.0", "canceled")]


async def test_an_end_that_an_earlier_attempt_decided_is_told(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=3)
    one_after_the_other(api, lambda: api.succeed(job_id))  # by attempt 1, which was believed dead
    answer = await api.http.get(f"/v1/jobs/{job_id}/events")
    assert [name for _, name, _ in read(answer.text)] == ["started", "succeeded"]


async def test_a_quiet_stream_is_kept_alive_by_comments(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    waits = 0

    async def long_after() -> None:
        nonlocal waits
        waits += 1
        if waits == 40:
            await api.succeed(job_id)

    api.store.during = long_after
    text = (await api.http.get(f"/v1/jobs/{job_id}/events")).text
    assert text.count(": ping\n\n") == 2
    assert [name for _, name, _ in read(text)] == ["queued", "succeeded"]


async def test_a_store_that_is_away_for_a_while_has_no_news(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = await api.submit()
    await api.project_published()
    get, asked = api.store.get, 0

    async def away(tenant: str, job: str) -> Any:
        nonlocal asked
        asked += 1
        if 2 < asked < 6:
            raise Unavailable("away")
        if asked == 6:
            await api.succeed(job_id)
        return await get(tenant, job)

    monkeypatch.setattr(api.store, "get", away)
    answer = await api.http.get(f"/v1/jobs/{job_id}/events")
    assert [name for _, name, _ in read(answer.text)] == ["queued", "succeeded"]


async def test_a_stream_ends_after_a_while_so_that_the_key_is_asked_for_again(api: Api) -> None:
    job_id = await api.submit()
    began = api.clock.now
    answer = await api.http.get(f"/v1/jobs/{job_id}/events")
    assert api.clock.now - began == pytest.approx(STREAM_S, abs=2)
    assert [name for _, name, _ in read(answer.text)] == ["queued"]


async def test_head_is_answered_at_once(api: Api) -> None:
    job_id = await api.submit()
    answer = await api.http.head(f"/v1/jobs/{job_id}/events")
    assert (answer.status_code, answer.content, api.store.waited) == (200, b"", [])


async def test_a_stream_ends_when_the_service_stops(api: Api) -> None:
    job_id = await api.submit()
    api.store.during = api.draining.set
    answer = await api.http.get(f"/v1/jobs/{job_id}/events")
    assert [name for _, name, _ in read(answer.text)] == ["queued"]


async def test_an_unknown_job_has_no_stream(api: Api) -> None:
    answer = await api.http.get("/v1/jobs/nobody/events")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")
    assert (await api.http.get("/v1/jobs/nobody/events?wait=1")).status_code == 422


# ------------------------------------------------------------------------------------------ progress and partial output


async def emit(api: Api, job_id: str, first: int, *chunks: Any, attempt: int = 1) -> None:
    output = Payload(media_type=JSON, data=canonical_json(chunks))
    await api.event(job_id, EventKind.OUTPUT, attempt=attempt, sequence=first, chunks=len(chunks), output=output)


async def progress(api: Api, job_id: str, sequence: int, fraction: float, attempt: int = 1) -> None:
    await api.event(job_id, EventKind.PROGRESS, attempt=attempt, sequence=sequence, progress=fraction)


def told(text: str) -> list[tuple[str, Any]]:
    """Of each event its name, and of `output` attempt, index and chunk, of `progress` the number."""
    return [
        (name, (data["attempt"], data["index"], data["chunk"]) if name == "output" else data.get("progress"))
        for _, name, data in read(text)
    ]


async def talking(api: Api) -> str:
    """A job whose two attempts say what they do while a reader waits."""
    job_id = await api.submit()
    await api.project_published()
    one_after_the_other(
        api,
        lambda: api.event(job_id, EventKind.STARTED, attempt=1),
        lambda: emit(api, job_id, 0, "lost"),
        lambda: api.event(job_id, EventKind.STARTED, attempt=2),
        lambda: progress(api, job_id, 1, 0.25, attempt=2),
        lambda: emit(api, job_id, 0, "a", {"b": [None, "\n"]}, attempt=2),
        lambda: emit(api, job_id, 2, 3, attempt=2),
        lambda: progress(api, job_id, 7, 0.5, attempt=2),
        lambda: api.event(job_id, EventKind.SUCCEEDED, attempt=2, output=Payload(media_type=TEXT, data=b"a")),
    )
    return job_id


async def test_chunks_and_progress_come_behind_the_start_of_their_attempt(api: Api) -> None:
    job_id = await talking(api)
    assert told((await api.http.get(f"/v1/jobs/{job_id}/events")).text) == [
        ("queued", None),
        ("started", None),
        ("output", (1, 0, "lost")),
        ("started", None),
        ("progress", 0.25),
        ("output", (2, 0, "a")),
        ("output", (2, 1, {"b": [None, "\n"]})),
        ("output", (2, 2, 3)),
        ("progress", 0.5),
        ("succeeded", None),
    ]


async def test_whoever_comes_again_at_any_event_gets_each_chunk_that_is_left_once(api: Api) -> None:
    job_id = await talking(api)
    whole = list(read((await api.http.get(f"/v1/jobs/{job_id}/events")).text))
    chunks = [data["index"] for _, name, data in whole if name == "output" and data["attempt"] == 2]
    started = [name for _, name, _ in whole].index("started", 2)
    for place, (last, _, _) in enumerate(whole[:-1]):
        rest = list(read((await api.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": last})).text))
        seen = [data for _, name, data in whole[: place + 1] if name == "output" and data["attempt"] == 2]
        if place < started:
            (_, name, data), *rest = rest
            assert (name, data["status"], data["attempts"]) == ("started", "running", 2)
        assert [name for _, name, _ in rest] == ["output"] * (3 - len(seen)) + ["succeeded"]
        assert [data["index"] for _, _, data in rest[:-1]] == chunks[len(seen) :]


async def test_progress_that_was_told_is_not_told_again_and_of_several_words_the_last_one(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=1)
    await progress(api, job_id, 1, 0.125)
    await progress(api, job_id, 2, 0.25)
    assert (await api.http.get(f"/v1/jobs/{job_id}")).json()["progress"] == 0.25
    api.store.during = api.draining.set
    events = list(read((await api.http.get(f"/v1/jobs/{job_id}/events")).text))
    assert [(name, data["progress"]) for _, name, data in events] == [("started", 0.25), ("progress", 0.25)]
    api.draining.clear()
    one_after_the_other(api, lambda: progress(api, job_id, 3, 0.5), lambda: api.succeed(job_id))
    answer = await api.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": events[-1][0]})
    assert told(answer.text) == [("progress", 0.5), ("succeeded", None)]
    assert "progress" not in (await api.http.get(f"/v1/jobs/{job_id}")).json()


async def test_more_chunks_than_are_read_at_once_all_come(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "ROWS", 2)
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=1)
    for first in range(0, 12, 2):
        await emit(api, job_id, first, first, first + 1)
    await api.succeed(job_id)
    for last, left in [("0.0", 0), ("0.1", 0), ("0.1.3", 3), ("0.1.12", 12), ("0.1.99", 12)]:
        answer = await api.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": last})
        started = [("started", None)] if last == "0.0" else []
        assert told(answer.text) == started + [("output", (1, n, n)) for n in range(left, 12)] + [("succeeded", None)]


async def test_a_stream_whose_chunks_cannot_be_read_ends_before_them(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=1)
    await emit(api, job_id, 0, "a")

    async def away(*asked: Any) -> Any:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(api.store, "partials", away)
        assert told((await api.http.get(f"/v1/jobs/{job_id}/events")).text) == [("started", None)]
    await api.succeed(job_id)
    answer = await api.http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": "0.1"})
    assert told(answer.text) == [("output", (1, 0, "a")), ("succeeded", None)]


async def test_chunks_of_an_attempt_whose_start_is_not_told_yet_wait_for_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is read before its chunks, and another attempt may begin between the two."""
    job_id = await api.submit()
    await api.project_published()
    await api.event(job_id, EventKind.STARTED, attempt=1)
    await emit(api, job_id, 0, "a")
    partials = api.store.partials

    async def overtaken(*asked: Any) -> Any:
        monkeypatch.undo()
        await api.event(job_id, EventKind.STARTED, attempt=2)
        await emit(api, job_id, 0, "b", attempt=2)
        return await partials(*asked)

    monkeypatch.setattr(api.store, "partials", overtaken)
    one_after_the_other(api, lambda: api.event(job_id, EventKind.CANCELED))
    events = told((await api.http.get(f"/v1/jobs/{job_id}/events")).text)
    assert events == [("started", None), ("started", None), ("output", (2, 0, "b")), ("canceled", None)]


# ------------------------------------------------------------------------------------------------------------ tags


async def test_an_output_that_the_caller_has_is_not_sent_again(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    await api.succeed(job_id)
    path = f"/v1/jobs/{job_id}/result"
    first = await api.http.get(path)
    again = await api.http.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert "content-length" not in again.headers
    other = await api.http.get(path, headers={"if-none-match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


async def test_a_blob_that_the_caller_has_is_not_read(api: Api) -> None:
    job_id = await api.submit()
    await api.project_published()
    ref = await api.blobs.put("default", job_id, b"large")
    await api.succeed(job_id, payload=Payload(media_type=TEXT, blob=ref))
    tag = (await api.http.get(f"/v1/jobs/{job_id}/result")).headers["etag"]
    await api.blobs.delete_job("default", job_id)
    answer = await api.http.get(f"/v1/jobs/{job_id}/result", headers={"if-none-match": tag})
    assert answer.status_code == 304


async def test_the_same_bytes_have_the_same_tag_wherever_they_lie(api: Api) -> None:
    tags = set()
    for inline in (True, False):
        api.clock.now += 1
        job_id = await api.submit()
        await api.project_published()
        payload = Payload(media_type=TEXT, data=b"same")
        if not inline:
            payload = replace(payload, data=None, blob=await api.blobs.put("default", job_id, b"same"))
        await api.succeed(job_id, payload=payload)
        tags.add((await api.http.get(f"/v1/jobs/{job_id}/result")).headers["etag"])
    assert len(tags) == 1


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (['"a"'], True),
        (['W/"a"'], True),
        (['"b", "a"'], True),
        (['"b"', '"a"'], True),
        (["*"], True),
        (['"b"'], False),
        (["a"], False),
        ([], False),
    ],
)
def test_a_tag_is_matched_weakly(fields: list[str], found: bool) -> None:
    assert matches(fields, '"a"') == found
