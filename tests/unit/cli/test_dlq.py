"""`forebay dlq`, and doing a job again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from tests.unit.cli.conftest import FAILED, JOB, JOB_ID, FakeService, Ran

Forebay = Callable[..., Ran]
NEW_ID = JOB_ID.replace("01934b5c", "81934b5c")
NEW = {**JOB, "id": NEW_ID, "retry_of": JOB_ID}
LETTERS = "GET /v1/dead-letters"
MANY = "POST /v1/dead-letters/redrive"
SHOWN = {
    **FAILED,
    "history": [
        {"attempt": 1, "worker": "host-1", "started_at": "2026-11-23T18:00:00.000000Z"},
        {
            "attempt": 2,
            "worker": "host-2",
            "started_at": "2026-11-23T18:00:00.100000Z",
            "finished_at": "2026-11-23T18:00:00.210000Z",
            "error": FAILED["error"],
        },
    ],
    "retried_by": [NEW_ID],
    "headers": {"forebay-model": "sentiment"},
    "input": {"media_type": "text/plain", "size_bytes": 4},
}


def redriven(count: int, **more: object) -> dict[str, object]:
    return {"redriven": count, "already": 0, "gone": 0, "refused": 0, "jobs": [], **more}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For which the commands would have slept."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def test_a_job_is_done_again(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"POST /v1/jobs/{JOB_ID}/retry", NEW, status=202)
    assert forebay("jobs", "retry", JOB_ID) == Ran(0, f"{NEW_ID} queued\n", "")
    assert forebay("jobs", "retry", JOB_ID, "--json").json == NEW


def test_dead_letters_are_listed_with_filters(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(LETTERS, {"dead_letters": [FAILED]})
    ran = forebay("dlq", "ls", "--model", "sentiment", "--code", "model_error", "--limit", "5")
    assert dict(fake.requests[0].url.params) == {"model": "sentiment", "code": "model_error", "limit": "5"}
    header, line = ran.out.splitlines()
    assert header.split() == ["id", "model", "code", "attempts", "failed", "error"]
    assert line.split()[:5] == [JOB_ID, "sentiment", "model_error", "3", "2026-11-23T18:00:00Z"]
    assert forebay("dlq", "ls", "--json").json == [FAILED]


def test_no_dead_letters_are_no_error(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(LETTERS, {"dead_letters": []})
    assert forebay("dlq", "ls") == Ran(0, "", "no dead letters\n")
    assert forebay("dlq", "ls", "--code", "x") == Ran(0, "", "no such dead letters\n")


def test_one_is_shown_with_its_attempts_and_headers(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET /v1/dead-letters/{JOB_ID}", SHOWN)
    ran = forebay("dlq", "show", JOB_ID)
    assert f"done again as {NEW_ID}" in ran.out
    assert "host-1  2026-11-23T18:00:00.000000Z" in ran.out
    assert "nobody said how it ended" in ran.out
    assert "model_error: the model raised ValueError" in ran.out
    assert "forebay-model  sentiment" in ran.out
    assert forebay("dlq", "show", JOB_ID, "--json").json == SHOWN


def test_one_whose_request_is_gone_says_so(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET /v1/dead-letters/{JOB_ID}", {**FAILED, "history": []})
    assert "cannot be done again" in forebay("dlq", "show", JOB_ID).out


def test_those_with_these_ids_are_redriven(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"POST /v1/dead-letters/{JOB_ID}/redrive", NEW, status=202)
    assert forebay("dlq", "redrive", JOB_ID) == Ran(0, f"{NEW_ID} queued does {JOB_ID} again\n", "")


def test_those_before_one_that_cannot_be_redriven_are_told(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"POST /v1/dead-letters/{JOB_ID}/redrive", NEW, status=202)
    gone = {"title": "Gone", "status": 410, "code": "job_gone", "detail": f"it was done again as {JOB_ID}"}
    fake.answers(f"POST /v1/dead-letters/{NEW_ID}/redrive", httpx2.Response(410, json=gone))
    ran = forebay("dlq", "redrive", JOB_ID, NEW_ID)
    assert (ran.code, ran.out) == (1, f"{NEW_ID} queued does {JOB_ID} again\n")
    assert f"it was done again as {JOB_ID}" in ran.err


@pytest.mark.parametrize("arguments", [(), (JOB_ID, "--all"), (JOB_ID, "--code", "x")])
def test_which_are_to_be_redriven_must_be_said(arguments: tuple[str, ...], fake: FakeService, forebay: Forebay) -> None:
    ran = forebay("dlq", "redrive", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert "--all" in ran.err
    assert fake.requests == []


def test_all_that_fit_are_redriven_page_by_page(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(MANY, redriven(10, next_cursor="c"), redriven(3, gone=2, refused=1))
    ran = forebay("dlq", "redrive", "--code", "down")
    assert (ran.code, ran.out) == (0, "13 redriven\n")
    assert "2 are left: their input is no longer kept" in ran.err
    assert "1 are left: their model is not there" in ran.err
    first, second = (dict(request.url.params) for request in fake.requests)
    assert first == {"code": "down", "rate": "10", "limit": "10"}
    assert second == {**first, "cursor": "c"}


def test_between_pages_the_rate_is_kept(fake: FakeService, forebay: Forebay, pauses: list[float]) -> None:
    fake.answers(MANY, redriven(2, next_cursor="c"), redriven(2, next_cursor="d"), redriven(0))
    forebay("dlq", "redrive", "--all", "--rate", "2")
    assert [round(pause, 1) for pause in pauses if pause] == [1.0, 2.0]  # time stands nearly still


def test_a_limit_ends_it(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(MANY, redriven(10, next_cursor="c"), redriven(2, next_cursor="d"))
    ran = forebay("dlq", "redrive", "--all", "--limit", "12", "--json")
    assert ran.json == {"redriven": 12, "already": 0, "gone": 0, "refused": 0}
    assert [request.url.params["limit"] for request in fake.requests] == ["10", "2"]


def test_a_service_that_is_away_for_a_moment_is_waited_for(fake: FakeService, forebay: Forebay) -> None:
    away = {
        "title": "Service Unavailable",
        "status": 503,
        "code": "unavailable",
        "retry_after_s": 2.0,
        "detail": "away",
    }
    fake.answers(MANY, redriven(1, next_cursor="c"), httpx2.Response(503, json=away), redriven(1))
    assert forebay("dlq", "redrive", "--all").out == "2 redriven\n"


def test_what_was_done_before_an_error_is_told(fake: FakeService, forebay: Forebay) -> None:
    refused = {"title": "Forbidden", "status": 403, "code": "scope_missing", "detail": "it takes submit"}
    fake.answers(MANY, redriven(4, next_cursor="c"), httpx2.Response(403, json=refused))
    ran = forebay("dlq", "redrive", "--all")
    assert ran.code == 1
    assert "4 were redriven; run it again for the others" in ran.err


def test_an_interrupt_tells_what_was_done(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(MANY, redriven(4, next_cursor="c"), KeyboardInterrupt())
    ran = forebay("dlq", "redrive", "--all")
    assert ran.code == 130
    assert "4 were redriven; run it again for the others" in ran.err


def test_an_export_goes_to_standard_output_or_to_a_new_file(
    fake: FakeService, forebay: Forebay, tmp_path: Path
) -> None:
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in (SHOWN, {**SHOWN, "id": NEW_ID}))
    fake.answers(LETTERS + "/export", httpx2.Response(200, text=text))
    assert forebay("dlq", "export", "--model", "sentiment") == Ran(0, text, "2 dead letters exported\n")
    assert dict(fake.requests[0].url.params) == {"model": "sentiment"}
    file = tmp_path / "letters.jsonl"
    assert forebay("dlq", "export", "-o", str(file)).out == ""
    assert file.read_text() == text
    ran = forebay("dlq", "export", "-o", str(file))
    assert (ran.code, file.read_text()) == (1, text)
    assert "is there already; name another file" in ran.err
    assert [one.name for one in tmp_path.iterdir()] == ["letters.jsonl"]


def test_an_export_that_is_refused_says_why_and_leaves_no_file(
    fake: FakeService, forebay: Forebay, tmp_path: Path
) -> None:
    problem = {"title": "Unauthorized", "status": 401, "code": "no_key", "detail": "send your API key"}
    fake.answers(LETTERS + "/export", httpx2.Response(401, json=problem))
    file = tmp_path / "letters.jsonl"
    assert forebay("dlq", "export", "-o", str(file)).err == "forebay: send your API key (401 no_key)\n"
    assert list(tmp_path.iterdir()) == []
    fake.answers(LETTERS + "/export", httpx2.Response(200, text="{}\n"))
    assert forebay("dlq", "export", "-o", str(file)).code == 0


def test_an_export_that_breaks_off_says_that_it_is_not_whole(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(LETTERS + "/export", httpx2.ReadError("cut"))
    ran = forebay("dlq", "export")
    assert ran.code == 1
    assert "0 were written, and there are more" in ran.err
