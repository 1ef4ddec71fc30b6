from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import Ran

from forebay.adapters.sqlite.folder_lock import FolderLock

Forebay = Callable[..., Ran]
MODELS = str(Path(__file__).parents[3] / "models")


@pytest.fixture
def examined(forebay: Forebay) -> Callable[..., tuple[int, Mapping[str, Any]]]:
    """The exit code and the last finding about each thing. Ports are any, so that nothing depends on the machine."""

    def run(*arguments: str) -> tuple[int, Mapping[str, Any]]:
        ran = forebay("doctor", "--json", "--port", "0", "--admin-port", "0", *arguments)
        return ran.code, {finding["about"]: finding for finding in ran.json}

    return run


Examined = Callable[..., tuple[int, Mapping[str, Any]]]


def test_a_place_where_all_is_well(examined: Examined) -> None:
    code, found = examined("--models-dir", MODELS)
    assert code == 0
    assert {about: finding["state"] for about, finding in found.items()} == dict.fromkeys(
        ("Python", "SQLite", "clock", "disk", "data", "models", "API port", "metrics port"), "ok"
    )
    assert "text_classification" in found["models"]["says"]


def test_it_leaves_no_trace(examined: Examined, tmp_path: Path) -> None:
    examined("--models-dir", MODELS)
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_is_held_is_told_with_its_holder(examined: Examined, tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / ".forebay")
    lock.acquire()
    try:
        code, found = examined("--models-dir", MODELS)
    finally:
        lock.release()
    assert code == 0
    assert found["data"]["state"] == "warning"
    assert "is in use by process" in found["data"]["says"]


def test_a_data_folder_that_is_a_file_is_wrong(examined: Examined, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, found = examined("--models-dir", MODELS, "--data-dir", "file")
    assert (code, found["data"]["state"]) == (1, "wrong")


def test_a_models_folder_that_is_missing_is_wrong_with_its_fix(examined: Examined) -> None:
    code, found = examined()
    assert (code, found["models"]["state"], found["models"]["fix"]) == (1, "wrong", "name the folder with --models-dir")


def test_a_clock_before_this_version_is_wrong(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)
    code, found = examined("--models-dir", MODELS)
    assert (code, found["clock"]["state"]) == (1, "wrong")
    assert found["clock"]["says"].startswith("1970-01-01T00:00:00Z")


def test_findings_are_lines_for_people(forebay: Forebay) -> None:
    lines = forebay("doctor", "--port", "0", "--admin-port", "0", "--models-dir", MODELS).out.splitlines()
    assert lines[0].startswith("ok        Python: ")
    assert len(lines) == 8
