from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from tests.unit.cli.conftest import FAILED, JOB_ID, SUCCEEDED, FakeService, Ran

Forebay = Callable[..., Ran]
MODEL = {"name": "sentiment", "version": "1", "versions": ["1"], "status": "ready", "task": "text-classification"}
REASON = "no file " + "x" * 200
BROKEN = {
    "name": "broken",
    "version": "2",
    "versions": ["2"],
    "status": "unavailable",
    "reason": REASON,
}


def test_jobs_are_listed_with_filters(fake: FakeService, forebay: Forebay) -> None:
    fake.answers("GET /v1/jobs", {"jobs": [SUCCEEDED, FAILED]})
    ran = forebay("jobs", "ls", "--model", "sentiment", "--status", "failed", "--limit", "5")
    assert ran.code == 0
    assert dict(fake.requests[0].url.params) == {"model": "sentiment", "status": "failed", "limit": "5"}
    header, first, second = ran.out.splitlines()
    assert header.split() == ["id", "model", "status", "attempts", "created", "took"]
    assert first.split() == [JOB_ID, "sentiment", "succeeded", "1", "2026-11-23T18:00:00Z", "0.210", "s"]
    assert second.split()[2:4] == ["failed", "3"]


def test_a_job_of_which_little_is_known_yet_can_be_listed(fake: FakeService, forebay: Forebay) -> None:
    fake.answers("GET /v1/jobs", {"jobs": [{"id": "1", "status": "queued", "created_at": "2026-11-23T18:00:00Z"}]})
    assert forebay("jobs", "ls").code == 0


def test_jobs_of_a_span_of_time_are_listed(fake: FakeService, forebay: Forebay) -> None:
    fake.answers("GET /v1/jobs", {"jobs": []})
    span = {"created_after": "2026-11-23T18:00:00Z", "created_before": "2026-11-23T19:00:00Z"}
    options = (word for name, time in span.items() for word in (f"--{name.replace('_', '-')}", time))
    assert forebay("jobs", "ls", *options).err == "no such jobs\n"
    assert dict(fake.requests[0].url.params) == {**span, "limit": "20"}


def test_no_jobs_are_no_error(fake: FakeService, forebay: Forebay) -> None:
    fake.answers("GET /v1/jobs", {"jobs": []})
    assert forebay("jobs", "ls") == Ran(0, "", "no jobs\n")
    assert forebay("jobs", "ls", "--json") == Ran(0, "[]\n", "")


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (40, ["id"]),
        (74, ["id", "status"]),
        (75, ["id", "model", "status"]),
        (80, ["id", "model", "status"]),
        (100, ["id", "model", "status", "created"]),
        (200, ["id", "model", "status", "attempts", "created", "took"]),
    ],
)
def test_a_narrow_terminal_shows_fewer_columns_and_whole_ids(
    width: int, columns: list[str], fake: FakeService, forebay: Forebay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.cli.screen.terminal_width", lambda: width)
    fake.answers("GET /v1/jobs", {"jobs": [SUCCEEDED, FAILED]})
    header, *lines = forebay("jobs", "ls").out.splitlines()
    assert header.split() == columns
    assert [line.split()[0] for line in lines] == [JOB_ID, JOB_ID]
    assert all(len(line.rstrip()) <= max(width, len(JOB_ID)) for line in lines)


def test_a_job_is_found_by_the_beginning_of_its_id(fake: FakeService, forebay: Forebay) -> None:
    other = {**FAILED, "id": JOB_ID.replace("01934b5c-0000", "01934b5c-0001")}
    fake.answers("GET /v1/jobs", {"jobs": [other, SUCCEEDED]})
    fake.answers(f"GET /v1/jobs/{JOB_ID}", SUCCEEDED)
    assert forebay("jobs", "get", JOB_ID[:13].upper(), "--json").json == SUCCEEDED
    assert dict(fake.requests[0].url.params) == {"limit": "1000"}
    ran = forebay("jobs", "get", JOB_ID[:8])
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        f"forebay: 2 jobs have an id that begins with '01934b5c'; give more of it:\n  {other['id']}\n  {JOB_ID}\n"
    )
    assert "none of the newest 1000 jobs" in forebay("jobs", "get", "fedcba98").err


def test_the_beginning_of_an_id_must_be_long_enough(fake: FakeService, forebay: Forebay) -> None:
    ran = forebay("jobs", "get", JOB_ID[:7])
    assert (ran.code, fake.requests) == (1, [])
    assert "at least its first 8 letters" in ran.err


def test_a_job_is_shown(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET /v1/jobs/{JOB_ID}", SUCCEEDED)
    out = forebay("jobs", "get", JOB_ID).out
    assert "succeeded" in out
    assert '[{"label": "POSITIVE", "score": 0.98}]' in out
    assert forebay("jobs", "get", JOB_ID, "--json").json == SUCCEEDED


def test_a_job_that_nobody_knows_ends_with_1(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET /v1/jobs/{JOB_ID}", {"code": "unknown_job", "detail": "no such job"}, status=404)
    assert forebay("jobs", "get", JOB_ID) == Ran(1, "", "forebay: no such job (404 unknown_job)\n")


def test_a_job_is_deleted(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"DELETE /v1/jobs/{JOB_ID}", httpx2.Response(202), httpx2.Response(204))
    assert forebay("jobs", "delete", JOB_ID) == Ran(0, f"{JOB_ID} will be deleted within moments\n", "")
    assert forebay("jobs", "delete", JOB_ID) == Ran(0, f"{JOB_ID} deleted\n", "")


def test_a_job_that_has_not_ended_is_not_deleted(fake: FakeService, forebay: Forebay) -> None:
    refusal = {"code": "job_not_final", "detail": "the job is running; cancel it first"}
    fake.answers(f"DELETE /v1/jobs/{JOB_ID}", refusal, status=409)
    assert forebay("jobs", "delete", JOB_ID).err == "forebay: the job is running; cancel it first (409 job_not_final)\n"


def test_models_are_listed_with_the_whole_reason(fake: FakeService, forebay: Forebay) -> None:
    fake.answers("GET /v1/models", {"models": [MODEL, BROKEN]})
    out = forebay("models", "ls").out
    assert REASON in out
    assert forebay("models", "ls", "--json").json == [MODEL, BROKEN]


def test_a_model_is_shown_with_its_schemas(fake: FakeService, forebay: Forebay) -> None:
    shown = {**MODEL, "labels": [str(number) for number in range(1000)], "input_schema": {"type": "string"}}
    fake.answers("GET /v1/models/sentiment", shown)
    out = forebay("models", "show", "sentiment").out
    assert "0, 1, 2, 3, 4 and 995 more" in out
    assert '"type": "string"' in out
    assert forebay("models", "show", "sentiment", "--json").json == shown


def test_a_models_directory_in_order_passes(forebay: Forebay) -> None:
    models = Path(__file__).parents[3] / "models"
    ran = forebay("models", "validate", str(models))
    assert ran.code == 0
    assert "described image_classification 1 (image-classification, onnx)" in ran.out
    assert "no model was loaded; --load does that too" in ran.err


@pytest.fixture
def shout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a handler that is trusted and in order, and that prints."""
    file = tmp_path / "models" / "shout" / "1" / "model.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import os\nprint('imported')\nos.system('echo beneath')\n\n\nclass Model:\n"
        "    def predict(self, inputs):\n        return inputs\n"
    )
    monkeypatch.setenv("FOREBAY_TRUSTED_MODELS", "shout")
    return file


def test_what_was_loaded_is_ready(shout: Path, forebay: Forebay) -> None:
    assert forebay("models", "validate").out == "described shout 1 (json, python)\n"
    assert forebay("models", "validate", "--load").out == "ready shout 1 (json, python)\n"


def test_what_a_handler_prints_while_it_is_loaded_does_not_mix_with_json(shout: Path) -> None:
    command = [sys.executable, "-m", "forebay", "models", "validate", "--load", "--json"]
    ran = subprocess.run(command, cwd=shout.parents[3], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(ran.stdout) == {
        "models": [{"name": "shout", "version": "1", "task": "json", "runtime": "python", "status": "ready"}],
        "problems": {},
    }
    assert {"imported", "beneath"} <= set(ran.stderr.split())


@pytest.mark.parametrize("arguments", [(), ("--load",)])
def test_a_handler_that_is_no_python_is_told_with_its_line(
    arguments: tuple[str, ...], shout: Path, forebay: Forebay
) -> None:
    shout.write_text("raise SystemExit('it was run')\n\ndef f(:\n")
    ran = forebay("models", "validate", *arguments)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("unavailable shout: shout/1/model.py: line 3: ")


def test_a_handler_that_cannot_be_loaded_is_unavailable(shout: Path, forebay: Forebay) -> None:
    shout.write_text("class Model:\n    pass\n")
    ran = forebay("models", "validate", "--load", "--json")
    assert (ran.code, ran.json["models"][0]["status"]) == (1, "unavailable")


def test_what_is_wrong_in_a_models_directory_is_told(forebay: Forebay, tmp_path: Path) -> None:
    (tmp_path / "models" / "broken" / "1").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "model.toml").write_text('task = "text-classificaton"\n')
    ran = forebay("models", "validate")
    assert ran.code == 1
    assert "unavailable broken: " in ran.out
    assert "model.toml" in ran.out
    assert list(forebay("models", "validate", "--json").json["problems"]) == ["broken"]


def test_an_empty_models_directory_does_not_pass(forebay: Forebay, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    ran = forebay("models", "validate")
    assert ran.code == 1
    assert "no models here" in ran.out


def test_a_job_that_waits_is_explained(fake: FakeService, forebay: Forebay) -> None:
    found = {
        "id": JOB_ID,
        "model": "sentiment",
        "lane": "low",
        "status": "queued",
        "position": 13,
        "position_exact": False,
        "waiting": 40,
        "rate_per_s": 3.875,
        "expected_start": {"p50_s": 3.1, "p90_s": 4.0, "p50_at": "", "p90_at": ""},
        "causes": [{"code": "jobs_ahead", "message": "12 jobs of the lane low are ahead of it"}],
    }
    fake.answers(f"GET /v1/jobs/{JOB_ID}/explain", found)
    ran = forebay("jobs", "explain", JOB_ID)
    assert ran.code == 0
    assert [line.split(maxsplit=1) for line in ran.out.splitlines()] == [
        ["id", JOB_ID],
        ["model", "sentiment"],
        ["lane", "low"],
        ["status", "queued"],
        ["position", "about 13 of 40"],
        ["rate", "3.88 jobs/s"],
        ["starts", "in 3.1 s (half of such jobs), 4.0 s (nine in ten)"],
        ["jobs_ahead", "12 jobs of the lane low are ahead of it"],
    ]
    assert forebay("jobs", "explain", JOB_ID, "--json").json == found
