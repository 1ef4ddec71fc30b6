"""A command that is printed runs as printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.cli.program import program


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`.venv/bin/forebay` of the folder that is the current one, on no PATH."""
    made = tmp_path / ".venv" / "bin" / "forebay"
    made.parent.mkdir(parents=True)
    made.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return made


def test_the_plain_name_where_a_shell_finds_it(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(script.parent))
    assert program([str(script), "up"]) == "forebay"


@pytest.mark.parametrize("called", [".venv/bin/forebay", "./.venv/bin/forebay", "{absolute}"])
def test_the_path_where_a_shell_does_not_find_it(called: str, script: Path) -> None:
    assert program([called.format(absolute=script), "up"]) == ".venv/bin/forebay"


def test_the_path_where_a_shell_finds_another(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "forebay").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    assert program([str(script)]) == ".venv/bin/forebay"


def test_the_whole_path_from_elsewhere(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here it is").mkdir()
    monkeypatch.chdir(tmp_path / "here it is")
    assert program([str(script)]) == str(script)


def test_no_bare_name_and_nothing_that_a_shell_would_split(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(script.parent)
    assert program([str(script)]) == "./forebay"
    script.parent.rename(script.parent.with_name("my bin"))
    monkeypatch.chdir(script.parents[2])
    assert program([".venv/my bin/forebay"]) == "'.venv/my bin/forebay'"


def test_a_module_is_named_with_its_python(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert program(["/site-packages/forebay/__main__.py", "up"]) == ".venv/bin/python -m forebay"


def test_another_program_is_told_the_plain_name(script: Path) -> None:
    assert program(["/usr/bin/pytest"]) == "forebay"
