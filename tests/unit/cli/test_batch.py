"""`forebay batch`: a file in, a file out, and the same command goes on where it was interrupted."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from rich.console import Console
from tests.unit.cli.conftest import FakeService, Ran

from forebay.cli import batch, batch_progress
from forebay.core.errors import Unavailable

ID = "8c9d2f1e-5b0a-4c3d-9e8f-0a1b2c3d4e5f"
PATH = f"/v1/batches/{ID}"
UNKNOWN = httpx2.Response(404, json={"title": "Not Found", "status": 404, "code": "unknown_batch", "detail": "none"})
LINES = b'{"line":1,"status":"succeeded","output":1}\n{"line":2,"status":"succeeded","output":2}\n'
Run = Callable[..., Ran]


def found(status: str, **counts: int) -> Mapping[str, Any]:
    whole = dict.fromkeys(("queued", "running", "succeeded", "failed", "canceled", "expired", "rejected"), 0) | counts
    batch = {"id": ID, "status": status, "counts": {"total": sum(whole.values()), **whole}}
    return batch | ({"finished_at": "2026-11-28T22:00:00Z"} if status in ("completed", "canceled") else {})


RUNNING, DONE = found("running", queued=1, succeeded=1), found("completed", succeeded=2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(ID))
    monkeypatch.setenv("FOREBAY_URL", "http://service")
    Path("in.jsonl").write_bytes(b'{"input": 1}\n{"input": 2}')


@pytest.fixture
def service(fake: FakeService) -> FakeService:
    """It knows nothing, takes the file, works, and has the results."""
    fake.answers(f"GET {PATH}", UNKNOWN, RUNNING, DONE)
    fake.answers(f"PUT {PATH}", found("running", queued=2), status=202)
    fake.answers(f"GET {PATH}/results", httpx2.Response(200, content=LINES))
    return fake


def methods(service: FakeService) -> list[str]:
    return [f"{one.method} {one.url.path.removeprefix(PATH)}".strip() for one in service.requests]


def test_a_file_goes_in_and_its_results_come_out(service: FakeService, forebay: Run) -> None:
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl", "--lane", "low", "-p", "top_k=3", "-p", "words=a b")
    assert ran.code == 0
    assert Path("out.jsonl").read_bytes() == LINES
    assert "completed: 2 succeeded; results in out.jsonl" in ran.err
    assert "done 2 of 2, 0 failed" in ran.err
    put = service.requests[1]
    query = dict(put.url.params)
    assert json.loads(query.pop("parameters")) == {"top_k": 3, "words": "a b"}
    assert query == {"model": "echo", "lane": "low"}
    assert methods(service) == ["GET", "PUT", "GET", "GET", "GET /results"]
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "out.jsonl"]


def test_not_all_succeeded_is_no_success(service: FakeService, forebay: Run) -> None:
    service.answers(f"GET {PATH}", UNKNOWN, found("completed", succeeded=1, rejected=1))
    mistake = {"line": 2, "error": {"code": "malformed_json", "message": "no JSON\x1b[2J"}}
    service.answers(f"PUT {PATH}", {**found("running", queued=1, rejected=1), "rejected": [mistake]}, status=202)
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl")
    assert ran.code == 1
    assert "line 2: no JSON\\x1b[2J (malformed_json)" in ran.err
    assert "1 succeeded, 1 rejected" in ran.err


def test_the_same_command_goes_on_with_the_same_batch(service: FakeService, forebay: Run) -> None:
    service.answers(f"PUT {PATH}", KeyboardInterrupt())
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl")
    assert ran.code == 130
    assert "batch echo in.jsonl out.jsonl\n" in ran.err
    assert f"the batch {ID} goes on" in ran.err
    assert "batch echo in.jsonl out.jsonl --cancel" in ran.err
    assert Path("out.jsonl.batch").exists()
    assert not Path("out.jsonl").exists()
    service.answers(f"GET {PATH}", found("incomplete", queued=1), DONE)
    service.answers(f"PUT {PATH}", found("running", queued=2), status=202)
    service.requests.clear()
    assert forebay("batch", "echo", "in.jsonl", "out.jsonl").code == 0
    assert methods(service) == ["GET", "PUT", "GET", "GET /results"]


def test_a_file_that_was_sent_whole_is_not_sent_again(service: FakeService, forebay: Run) -> None:
    service.answers(f"GET {PATH}", UNKNOWN, KeyboardInterrupt())
    assert forebay("batch", "echo", "in.jsonl", "out.jsonl").code == 130
    service.answers(f"GET {PATH}", RUNNING, DONE)
    service.requests.clear()
    assert forebay("batch", "echo", "in.jsonl", "out.jsonl").code == 0
    assert methods(service) == ["GET", "GET", "GET /results"]


@pytest.mark.parametrize("change", ["file", "model", "state"])
def test_what_is_not_the_same_does_not_go_on(service: FakeService, forebay: Run, change: str) -> None:
    service.answers(f"PUT {PATH}", KeyboardInterrupt())
    forebay("batch", "echo", "in.jsonl", "out.jsonl")
    if change == "file":
        Path("in.jsonl").write_bytes(b'{"input": 3}\n')
    if change == "state":
        Path("out.jsonl.batch").write_text("[]")
    ran = forebay("batch", "other" if change == "model" else "echo", "in.jsonl", "out.jsonl")
    assert (ran.code, "remove it to begin anew" in ran.err) == (1, True)


def test_results_that_are_there_are_not_overwritten(service: FakeService, forebay: Run) -> None:
    Path("out.jsonl").write_text("mine")
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl")
    assert (ran.code, Path("out.jsonl").read_text(), service.requests) == (1, "mine", [])


def test_a_service_that_is_away_for_a_while_is_waited_for(service: FakeService, forebay: Run) -> None:
    away = httpx2.Response(503, json={"status": 503, "code": "unavailable", "retry_after_s": 2, "detail": "away"})
    service.answers(f"PUT {PATH}", away, httpx2.ConnectError("refused"), httpx2.Response(202, json=RUNNING))
    service.answers(f"GET {PATH}/results", httpx2.ReadError("cut"), httpx2.Response(200, content=LINES))
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl")
    assert (ran.code, Path("out.jsonl").read_bytes()) == (0, LINES)
    assert "trying again" in ran.err


REFUSED = {"status": 404, "code": "unknown_model", "detail": "there is no model 'x'", "known": ["echo"]}


def test_what_the_service_refuses_is_told_and_does_not_stand_in_the_way_of_the_right_command(
    service: FakeService, forebay: Run
) -> None:
    service.answers(f"GET {PATH}", UNKNOWN)
    service.answers(f"PUT {PATH}", REFUSED, status=404)
    ran = forebay("batch", "x", "in.jsonl", "out.jsonl")
    assert (ran.code, "there is no model 'x'" in ran.err) == (1, True)
    service.answers(f"GET {PATH}", UNKNOWN, DONE)
    service.answers(f"PUT {PATH}", found("running", queued=2), status=202)
    assert forebay("batch", "echo", "in.jsonl", "out.jsonl").code == 0


def test_a_batch_of_which_something_was_sent_is_not_forgotten(service: FakeService, forebay: Run) -> None:
    service.answers(f"GET {PATH}", UNKNOWN, found("incomplete", queued=1))
    service.answers(f"PUT {PATH}", REFUSED, status=404)
    assert forebay("batch", "x", "in.jsonl", "out.jsonl").code == 1
    assert Path("out.jsonl.batch").exists()


GONE = b'{"line":2,"status":"succeeded","error":{"code":"job_gone","message":"deleted"}}\n'


def test_an_output_that_is_gone_is_told_and_is_no_success(service: FakeService, forebay: Run) -> None:
    service.answers(f"GET {PATH}/results", httpx2.Response(200, content=LINES.splitlines(keepends=True)[0] + GONE))
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl")
    assert (ran.code, "of 1 that succeeded the output is gone" in ran.err) == (1, True)
    assert Path("out.jsonl").read_bytes().endswith(GONE)


def test_lines_are_fetched_before_the_last_one_is_done(
    service: FakeService, forebay: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else those that are retained for a short time are gone by then."""
    monkeypatch.setattr(batch, "FETCH_EVERY_S", 0.0)
    one, two = LINES.splitlines(keepends=True)
    three = two.replace(b'"line":2', b'"line":4')
    waits = two.replace(b"succeeded", b"queued")
    service.answers(f"GET {PATH}", UNKNOWN, RUNNING, RUNNING, DONE)
    service.answers(
        f"GET {PATH}/results",
        httpx2.Response(202, content=one + waits + three),
        httpx2.Response(202, content=three),  # the second is not visible
        httpx2.Response(200, content=two + three),
        httpx2.Response(200, content=three),
    )
    assert forebay("batch", "echo", "in.jsonl", "out.jsonl").code == 0
    assert Path("out.jsonl").read_bytes() == one + two + three
    asked = [dict(request.url.params) for request in service.requests if request.url.path.endswith("results")]
    assert asked == [{}, {"after_line": "1"}, {"after_line": "1"}, {"after_line": "2"}]


def test_a_download_that_broke_off_goes_on_behind_its_last_whole_line(service: FakeService, forebay: Run) -> None:
    one, two = LINES.splitlines(keepends=True)

    def broken(rest: BaseException) -> httpx2.Response:
        def pieces() -> Iterator[bytes]:
            yield one + two[:10]
            raise rest

        return httpx2.Response(200, content=pieces())

    service.answers(f"GET {PATH}/results", broken(httpx2.ReadError("cut")), KeyboardInterrupt())
    assert forebay("batch", "echo", "in.jsonl", "out.jsonl").code == 130
    service.answers(f"GET {PATH}/results", httpx2.Response(200, content=two))
    assert forebay("batch", "echo", "in.jsonl", "out.jsonl").code == 0
    assert service.requests[-1].url.params["after_line"] == "1"
    assert Path("out.jsonl").read_bytes() == LINES


def test_the_printed_command_is_all_of_it(service: FakeService, forebay: Run) -> None:
    service.answers(f"PUT {PATH}", KeyboardInterrupt())
    options = ("--lane", "low", "-p", "top_k=3", "-p", "words=a b", "--url", "http://elsewhere")
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl", *options)
    again = "batch echo in.jsonl out.jsonl --lane low -p top_k=3 -p 'words=a b' --url http://elsewhere"
    assert f"{again}\n" in ran.err
    assert f"{again} --cancel\n" in ran.err


class Clock:
    def __init__(self) -> None:
        self.now = 1.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("lasts_s", "calls"), [(300.0, 5), (0.0, 61)])
def test_patience_ends_with_a_service_that_is_away_and_not_with_one_that_took_long(
    monkeypatch: pytest.MonkeyPatch, lasts_s: float, calls: int
) -> None:
    clock, called = Clock(), 0
    monkeypatch.setattr(batch, "time", clock)

    def call() -> str:
        nonlocal called
        called += 1
        if lasts_s and called == calls:
            return "done"
        clock.now += lasts_s
        raise Unavailable("away")

    if lasts_s:
        assert batch._patiently(call, batch_progress.Lines(1)) == "done"
    else:
        with pytest.raises(Unavailable):
            batch._patiently(call, batch_progress.Lines(1))
    assert called == calls


def test_a_batch_can_be_canceled(service: FakeService, forebay: Run) -> None:
    service.answers(f"PUT {PATH}", KeyboardInterrupt())
    forebay("batch", "echo", "in.jsonl", "out.jsonl")
    service.answers(f"GET {PATH}", found("incomplete", queued=1))
    service.answers(f"POST {PATH}/cancel", found("canceling", queued=1), found("canceled", canceled=1))
    service.requests.clear()
    Path("in.jsonl").unlink()
    ran = forebay("batch", "other", "in.jsonl", "out.jsonl", "--cancel")
    assert (ran.code, "canceled: 1 canceled" in ran.err) == (1, True)
    assert methods(service) == ["GET", "POST /cancel", "POST /cancel", "GET /results"]
    assert "no batch to cancel" in forebay("batch", "echo", "in.jsonl", "other.jsonl", "--cancel").err


def test_too_many_lines_are_not_sent(service: FakeService, forebay: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.core.job_batch.LINES_MOST", 1)
    ran = forebay("batch", "echo", "in.jsonl", "out.jsonl")
    assert (ran.code, "has 2 lines" in ran.err, service.requests) == (1, True, [])
    assert "cannot be read" in forebay("batch", "echo", "nothing.jsonl", "out.jsonl").err


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    for text, lines in ((b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2)):
        (tmp_path / "x").write_bytes(text)
        source = batch._read(tmp_path / "x")
        assert source.lines == lines


def test_on_a_terminal_a_bar_shows_what_is_done_and_what_failed() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with batch_progress.bar_on(console, 10) as shown:
        shown.counts(found("incomplete", succeeded=2, rejected=1)["counts"], whole=False)
        shown.counts(found("running", queued=4, succeeded=3, failed=1, rejected=1)["counts"], whole=True)
        shown.say("line 3: no JSON\x1b[2J")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue())
    assert "5/9" in lines
    assert "2 failed" in lines
    assert "line 3: no JSON\\x1b[2J" in lines
