from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from tests.unit.cli.conftest import FAILED, JOB, JOB_ID, RUNNING, SUCCEEDED, FakeService, Ran

from forebay.cli import main

Forebay = Callable[..., Ran]
SUBMIT = "POST /v1/models/sentiment/jobs"
MODEL = "GET /v1/models/sentiment"
GET = f"GET /v1/jobs/{JOB_ID}"


@pytest.fixture
def accepting(fake: FakeService) -> FakeService:
    fake.answers(SUBMIT, JOB, status=202)
    fake.answers(GET, RUNNING, SUCCEEDED)
    return fake


def test_a_text_is_sent_as_text_and_its_result_printed(accepting: FakeService, forebay: Forebay) -> None:
    ran = forebay("submit", "sentiment", "What a lovely day")
    assert ran.code == 0
    assert ran.json == [{"label": "POSITIVE", "score": 0.98}]
    sent = accepting.requests[0]
    assert sent.headers["content-type"] == "text/plain; charset=utf-8"
    assert sent.content == b"What a lovely day"


def test_states_are_told_one_per_line_where_no_terminal_is(accepting: FakeService, forebay: Forebay) -> None:
    ran = forebay("submit", "sentiment", "hello")
    assert ran.err.splitlines() == [
        f"{JOB_ID} queued",
        f"{JOB_ID} running",
        f"{JOB_ID} succeeded",
        "done in 0.210 s (queued 0.010 s, inference 0.200 s, batch of 4)",
    ]


def test_waiting_is_long_polling(accepting: FakeService, forebay: Forebay) -> None:
    accepting.answers(GET, RUNNING, RUNNING, RUNNING, SUCCEEDED)
    forebay("submit", "sentiment", "hello")
    assert [request.url.params["wait"] for request in accepting.requests[1:]] == ["1", "2", "4", "8"]


def test_a_file_is_sent_as_what_its_bytes_are(accepting: FakeService, forebay: Forebay, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\xff\xd8\xff\xe0 a JPEG under another name")
    assert forebay("submit", "sentiment", "photo.png").code == 0
    assert accepting.requests[0].headers["content-type"] == "image/jpeg"
    assert accepting.requests[0].content == (tmp_path / "photo.png").read_bytes()


def test_standard_input_is_read(accepting: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("schön".encode())))
    assert forebay("submit", "sentiment", "-").code == 0
    assert accepting.requests[0].content == "schön".encode()
    assert accepting.requests[0].headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("argument", ["photo.jpg", "photos/cat", "./x"])
def test_what_looks_like_a_path_and_is_not_there_is_not_sent(
    argument: str, accepting: FakeService, forebay: Forebay
) -> None:
    ran = forebay("submit", "sentiment", argument)
    assert (ran.code, accepting.requests) == (1, [])
    assert ran.err == f"forebay: there is no file {argument!r}; to send these words as text, add --text\n"


@pytest.mark.parametrize("argument", ["Great.", "a and/or b", "Costs 3.50", "x" * 10_000, "one\0two"])
def test_what_does_not_look_like_a_path_is_text(argument: str, accepting: FakeService, forebay: Forebay) -> None:
    assert forebay("submit", "sentiment", argument).code == 0
    assert accepting.requests[0].content == argument.encode()


def test_text_goes_before_a_file_of_that_name_when_asked_for(
    accepting: FakeService, forebay: Forebay, tmp_path: Path
) -> None:
    (tmp_path / "palace").write_text("not this")
    assert forebay("submit", "sentiment", "palace", "--text").code == 0
    assert accepting.requests[0].content == b"palace"


def test_an_empty_text_is_a_text(accepting: FakeService, forebay: Forebay) -> None:
    assert forebay("submit", "sentiment", "").code == 0
    assert accepting.requests[0].content == b""
    assert accepting.requests[0].headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["README.md", "page.html", "notes.csv"])
def test_a_text_file_is_sent_as_text_to_a_model_that_takes_no_other(
    name: str, accepting: FakeService, forebay: Forebay, tmp_path: Path
) -> None:
    accepting.answers(MODEL, {"media_types": ["text/plain"]})
    (tmp_path / name).write_text("schön")
    assert forebay("submit", "sentiment", name).code == 0
    assert accepting.requests[1].headers["content-type"] == "text/plain; charset=utf-8"


def test_a_text_file_is_sent_as_what_its_name_says_to_a_model_that_takes_it(
    accepting: FakeService, forebay: Forebay, tmp_path: Path
) -> None:
    accepting.answers(MODEL, {"media_types": ["application/json", "text/plain"]})
    (tmp_path / "value.json").write_text("{}")
    assert forebay("submit", "sentiment", "value.json").code == 0
    assert accepting.requests[1].headers["content-type"] == "application/json"


def test_a_file_for_a_model_that_nobody_knows_is_refused_by_the_submission(
    fake: FakeService, forebay: Forebay, tmp_path: Path
) -> None:
    fake.answers(SUBMIT, {"code": "unknown_model", "detail": "no such model"}, status=404)
    (tmp_path / "README.md").write_text("# Title")
    assert forebay("submit", "sentiment", "README.md").err == "forebay: no such model (404 unknown_model)\n"


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_json_is_sent_as_the_input(
    source: str, accepting: FakeService, forebay: Forebay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepting.answers("POST /v1/jobs", JOB, status=202)
    document = '{"a":["b/c",1.5,null]}'
    (tmp_path / "value.txt").write_text(document)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(document.encode())))
    argument = {"argument": document, "file": "value.txt", "stdin": "-"}[source]
    assert forebay("submit", "sentiment", "--input-json", argument).code == 0
    assert json.loads(accepting.requests[0].content) == {"model": "sentiment", "input": {"a": ["b/c", 1.5, None]}}


def test_parameters_beside_json_are_json_too(accepting: FakeService, forebay: Forebay) -> None:
    accepting.answers("POST /v1/jobs", JOB, status=202)
    given = ("-p", "top_k=3", "-p", "note=a=b", "-p", "tag=x", "-p", "tag=2")
    assert forebay("submit", "sentiment", "--input-json", "3", *given).code == 0
    sent = json.loads(accepting.requests[0].content)
    assert sent == {"model": "sentiment", "input": 3, "parameters": {"top_k": 3, "note": "a=b", "tag": ["x", 2]}}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("{", "--input-json: the argument is not JSON: Expecting property name"),
        ("", "--input-json: the argument is not JSON: Expecting value"),
        ("NaN", "--input-json: the argument is not JSON: NaN is no JSON value"),
        ("gone.json", "there is no file 'gone.json'"),
    ],
)
def test_what_is_no_json_is_not_sent_as_such(
    argument: str, words: str, accepting: FakeService, forebay: Forebay
) -> None:
    ran = forebay("submit", "sentiment", "--input-json", argument)
    assert (ran.code, accepting.requests) == (1, [])
    assert words in ran.err


@pytest.mark.parametrize(
    ("argument", "accepted", "hinted"),
    [
        ('{"a":"b/c"}', ["application/json"], True),
        ("[1]", ["application/json"], True),
        ("1", ["application/json"], False),
        ("words", ["application/json"], False),
        ("[1]", ["image/png"], False),
    ],
)
def test_json_as_text_for_a_model_that_takes_json_only_is_refused_with_the_way_to_send_it(
    argument: str, accepted: list[str], hinted: bool, fake: FakeService, forebay: Forebay
) -> None:
    fake.answers(SUBMIT, {"code": "unsupported_media_type", "detail": "no", "accepted": accepted}, status=415)
    ran = forebay("submit", "sentiment", argument)
    assert ran.code == 1
    assert ("forebay submit sentiment --input-json" in ran.err) == hinted


def test_the_help_shows_how_to_send_json(forebay: Forebay) -> None:
    out = forebay("submit", "--help").out
    assert "  forebay submit my_model --input-json - < input.json\n" in out


def test_a_text_like_an_option_is_refused_with_the_way_to_send_it(accepting: FakeService, forebay: Forebay) -> None:
    ran = forebay("submit", "sentiment", "-hello")
    assert (ran.code, accepting.requests) == (2, [])
    assert "goes behind --: forebay submit MODEL -- '-text'" in ran.err
    assert forebay("submit", "sentiment", "--", "-hello").code == 0
    assert accepting.requests[0].content == b"-hello"


def test_a_job_that_waits_for_a_model_that_is_unavailable_says_so_once(
    accepting: FakeService, forebay: Forebay
) -> None:
    accepting.answers(GET, JOB, JOB, SUCCEEDED)
    accepting.answers(MODEL, {"status": "unavailable", "reason": "model.onnx is cut short"})
    ran = forebay("submit", "sentiment", "hello")
    assert ran.code == 0
    line = "model sentiment is unavailable: model.onnx is cut short; the job waits until it is there"
    assert ran.err.splitlines().count(line) == 1


def test_a_job_that_is_not_visible_yet_is_waited_for(accepting: FakeService, forebay: Forebay) -> None:
    """Of which a service on Kafka tells no more than this until its projector has come to the job."""
    young = {name: JOB[name] for name in ("id", "status", "urls")}
    accepting.answers(GET, young, SUCCEEDED)
    assert forebay("submit", "sentiment", "hello").code == 0


@pytest.mark.parametrize("status", [200, 404])
def test_a_job_that_waits_for_its_turn_says_nothing_of_the_model(
    status: int, accepting: FakeService, forebay: Forebay
) -> None:
    accepting.answers(GET, JOB, SUCCEEDED)
    accepting.answers(MODEL, {"status": "ready"}, status=status)
    ran = forebay("submit", "sentiment", "hello")
    assert ran.code == 0
    assert "model" not in ran.err


def test_a_folder_is_no_input(accepting: FakeService, forebay: Forebay, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    ran = forebay("submit", "sentiment", "photos")
    assert (ran.code, accepting.requests) == (1, [])
    assert "photos cannot be read: Is a directory" in ran.err


def test_parameters_are_sent_by_name(accepting: FakeService, forebay: Forebay) -> None:
    assert forebay("submit", "sentiment", "hello", "-p", "top_k=3", "--param", "note=a=b").code == 0
    assert dict(accepting.requests[0].url.params) == {"top_k": "3", "note": "a=b"}


def test_a_parameter_without_value_is_refused(accepting: FakeService, forebay: Forebay) -> None:
    ran = forebay("submit", "sentiment", "hello", "-p", "top_k")
    assert (ran.code, accepting.requests) == (1, [])
    assert "expected NAME=VALUE" in ran.err


def test_without_waiting_the_id_is_printed(accepting: FakeService, forebay: Forebay) -> None:
    assert forebay("submit", "sentiment", "hello", "--no-wait") == Ran(0, f"{JOB_ID}\n", "")
    assert len(accepting.requests) == 1


def test_json_is_the_whole_job(accepting: FakeService, forebay: Forebay) -> None:
    assert forebay("submit", "sentiment", "hello", "--json").json == SUCCEEDED
    assert forebay("submit", "sentiment", "hello", "--json", "--no-wait").json == JOB


def test_a_job_that_failed_is_told_and_ends_with_1(accepting: FakeService, forebay: Forebay) -> None:
    accepting.answers(GET, FAILED)
    ran = forebay("submit", "sentiment", "hello")
    assert (ran.code, ran.out) == (1, "")
    assert "failed after 3 attempts: the model raised ValueError (model_error)" in ran.err


def test_a_failed_job_as_json_ends_with_1_too(accepting: FakeService, forebay: Forebay) -> None:
    accepting.answers(GET, FAILED)
    ran = forebay("submit", "sentiment", "hello", "--json")
    assert (ran.code, ran.json) == (1, FAILED)


def test_an_output_that_is_no_json_is_fetched_as_it_is(
    accepting: FakeService, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    accepting.answers(GET, {key: value for key, value in SUCCEEDED.items() if key != "output"})
    accepting.answers(f"GET /v1/jobs/{JOB_ID}/result", httpx2.Response(200, content=b"\x00\xff"))
    with pytest.raises(SystemExit):
        main(["submit", "sentiment", "hello"])
    assert capsysbinary.readouterr().out == b"\x00\xff"


def test_a_problem_is_told_with_its_places_and_names(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(
        SUBMIT,
        {
            "title": "Unprocessable Content",
            "status": 422,
            "code": "invalid_request",
            "detail": "parameters.top_k: -1 is less than 1",
            "errors": [{"pointer": "#/parameters/top_k", "detail": "-1 is less than 1"}],
        },
        status=422,
    )
    ran = forebay("submit", "sentiment", "hello")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "forebay: parameters.top_k: -1 is less than 1 (422 invalid_request)",
        "  /parameters/top_k: -1 is less than 1",
    ]


def test_a_problem_with_a_query_parameter_is_told_once(fake: FakeService, forebay: Forebay) -> None:
    detail = "status: one of queued, running"
    errors = [{"parameter": "status", "detail": detail}]
    fake.answers("GET /v1/jobs", {"code": "invalid_request", "detail": detail, "errors": errors}, status=422)
    assert forebay("jobs", "ls", "--status", "x").err == f"forebay: {detail} (422 invalid_request)\n"


def test_known_names_and_accepted_types_are_told(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(SUBMIT, {"code": "unknown_model", "detail": "no such model", "known": ["a", "b"]}, status=404)
    assert "  known: a, b" in forebay("submit", "sentiment", "hello").err
    fake.answers(SUBMIT, {"code": "unsupported_media_type", "detail": "no", "accepted": ["image/png"]}, status=415)
    assert "  accepted media types: image/png" in forebay("submit", "sentiment", "hello").err
    fake.answers(SUBMIT, {"code": "payload_too_large", "detail": "no", "limit_bytes": 5}, status=413)
    assert "  limit: 5 bytes" in forebay("submit", "sentiment", "hello").err


def test_a_submit_whose_outcome_is_unknown_names_the_job(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(SUBMIT, {"code": "outcome_unknown", "detail": "nobody can say", "job_id": JOB_ID}, status=503)
    assert f"forebay jobs get {JOB_ID}" in forebay("submit", "sentiment", "hello").err


def test_a_service_that_takes_nothing_yet_is_asked_again_when_it_says(
    accepting: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    away = httpx2.Response(503, json={"code": "unavailable", "detail": "a part is away", "retry_after_s": 2})
    accepting.answers(SUBMIT, away, away, httpx2.Response(202, json=dict(JOB)))
    ran = forebay("submit", "sentiment", "hello")
    assert ran.code == 0
    assert pauses == [2.0, 2.0]
    assert "a part is away (503 unavailable); trying again in 2 s" in ran.err


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param({"code": "outcome_unknown", "detail": "?", "retry_after_s": 1, "job_id": JOB_ID}, id="unknown"),
        pytest.param({"code": "unavailable", "detail": "?"}, id="no-time"),
        pytest.param({"code": "unavailable", "detail": "?", "retry_after_s": 3600}, id="too-late"),
    ],
)
def test_a_submit_is_not_repeated_where_that_may_double_it_or_be_in_vain(
    problem: dict[str, Any], fake: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    fake.answers(SUBMIT, problem, status=503)
    assert forebay("submit", "sentiment", "hello").code == 1
    assert len(fake.requests) == 1
    assert pauses == []


def test_a_service_that_is_away_is_told_with_its_address_and_remedy(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(SUBMIT, httpx2.ConnectError("connection refused"))
    ran = forebay("submit", "sentiment", "hello")
    assert ran == Ran(
        1,
        "",
        "forebay: no service answers at http://127.0.0.1:8000 (connection refused); "
        "start one with `forebay up`, or name another with --url or FOREBAY_URL\n",
    )


def test_a_service_that_restarts_while_we_wait_has_not_lost_the_job(
    accepting: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    busy = httpx2.Response(503, json={"code": "unavailable", "detail": "not yet"})
    accepting.answers(GET, RUNNING, httpx2.ConnectError("refused"), httpx2.ReadError("reset"), busy, SUCCEEDED)
    assert forebay("submit", "sentiment", "hello").code == 0
    assert pauses == [0.5, 1.0, 1.5]


def test_a_service_that_stays_away_is_given_up(
    accepting: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    accepting.answers(GET, httpx2.ConnectError("refused"))
    ran = forebay("submit", "sentiment", "hello")
    assert ran.code == 1
    assert "no service answers" in ran.err


def test_an_interrupt_leaves_the_job_alone_and_says_so(accepting: FakeService, forebay: Forebay) -> None:
    accepting.answers(GET, KeyboardInterrupt())
    ran = forebay("submit", "sentiment", "hello")
    assert ran.code == 130
    assert f"the job goes on: forebay jobs get {JOB_ID}" in ran.err


def test_something_else_at_the_address_is_told_apart(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(SUBMIT, httpx2.Response(502, text="<html>Bad Gateway</html>", headers={"content-type": "text/html"}))
    ran = forebay("submit", "sentiment", "hello")
    assert ran.code == 1
    assert "is no Forebay service (status 502, text/html)" in ran.err


def test_control_characters_of_a_service_do_not_reach_the_terminal(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(SUBMIT, {"code": "x", "detail": "red \x1b[31malert"}, status=400)
    assert "red \\x1b[31malert" in forebay("submit", "sentiment", "hello").err


def test_json_on_standard_output_stays_json_whatever_it_holds(accepting: FakeService, forebay: Forebay) -> None:
    accepting.answers(GET, {**SUCCEEDED, "output": "[bold]\x1b[31m:smile: ü"})
    assert json.loads(forebay("submit", "sentiment", "hello").out) == "[bold]\x1b[31m:smile: ü"


@pytest.mark.parametrize(
    ("environ", "arguments", "expected"),
    [
        ({}, (), "http://127.0.0.1:8000"),
        ({"FOREBAY_PORT": "9000"}, (), "http://127.0.0.1:9000"),
        ({"FOREBAY_HOST": "0.0.0.0", "FOREBAY_ALLOW_UNAUTHENTICATED": "true"}, (), "http://127.0.0.1:8000"),
        ({"FOREBAY_HOST": "::1"}, (), "http://[::1]:8000"),
        ({"FOREBAY_URL": "https://jobs.example/"}, (), "https://jobs.example"),
        ({"FOREBAY_URL": "https://jobs.example/"}, ("--url", "http://other:1"), "http://other:1"),
    ],
)
def test_the_address_comes_from_option_then_environment_then_settings(
    environ: dict[str, str],
    arguments: tuple[str, ...],
    expected: str,
    accepting: FakeService,
    forebay: Forebay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert forebay("submit", "sentiment", "hello", *arguments).code == 0
    assert str(accepting.requests[0].url) == f"{expected}/v1/models/sentiment/jobs"


def test_an_address_that_is_none_is_refused(accepting: FakeService, forebay: Forebay) -> None:
    ran = forebay("submit", "sentiment", "hello", "--url", "localhost:8000")
    assert (ran.code, accepting.requests) == (1, [])
    assert "expected one like http://127.0.0.1:8000" in ran.err


def test_a_model_name_cannot_leave_its_place_in_the_path(fake: FakeService, forebay: Forebay) -> None:
    forebay("submit", "../jobs?x", "hello")
    assert fake.requests[0].url.raw_path == b"/v1/models/..%2Fjobs%3Fx/jobs"
