from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


def test_no_jobs_are_no_error(fake: FakeService, forebay: Forebay) -> None:
    fake.answers("GET /v1/jobs", {"jobs": []})
    assert forebay("jobs", "ls") == Ran(0, "", "no jobs\n")
    assert forebay("jobs", "ls", "--json") == Ran(0, "[]\n", "")


def test_a_job_is_shown(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET /v1/jobs/{JOB_ID}", SUCCEEDED)
    out = forebay("jobs", "get", JOB_ID).out
    assert "succeeded" in out
    assert '[{"label": "POSITIVE", "score": 0.98}]' in out
    assert forebay("jobs", "get", JOB_ID, "--json").json == SUCCEEDED


def test_a_job_that_nobody_knows_ends_with_1(fake: FakeService, forebay: Forebay) -> None:
    fake.answers(f"GET /v1/jobs/{JOB_ID}", {"code": "unknown_job", "detail": "no such job"}, status=404)
    assert forebay("jobs", "get", JOB_ID) == Ran(1, "", "forebay: no such job (404 unknown_job)\n")


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
    assert "ready image_classification 1 (image-classification, onnx)" in ran.out


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
