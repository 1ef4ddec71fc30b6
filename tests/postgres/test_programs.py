"""Where PostgreSQL cannot be run, the message says what is missing and what to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dev.postgres import programs
from dev.postgres.programs import PostgresUnavailable, find_programs, find_runner, version


def install(folder: Path, answer: str = "postgres (PostgreSQL) 16.4") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{answer}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it. `/usr/lib/postgresql` is `debian` in the folder."""
    monkeypatch.delenv("POSTGRES_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(programs, "INSTALLED_IN", (f"{tmp_path}/debian/*/bin",))
    monkeypatch.setattr(programs, "WHEELS", ())
    return tmp_path


def test_without_postgresql_the_remedy_is_told(machine: Path) -> None:
    with pytest.raises(PostgresUnavailable, match="was not found: apt-get install postgresql"):
        find_programs()


def test_the_folder_that_was_named_and_no_other(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine / "path")
    monkeypatch.setenv("POSTGRES_BIN", str(machine / "mine"))
    with pytest.raises(PostgresUnavailable, match="POSTGRES_BIN with the folder"):
        find_programs()
    assert install(machine / "mine") == find_programs()


def test_a_link_on_the_path_leads_to_the_programs(machine: Path) -> None:
    folder = install(machine / "elsewhere")
    (machine / "path").mkdir()
    (machine / "path" / "postgres").symlink_to(folder / "postgres")
    assert find_programs() == folder


def test_the_newest_that_is_installed(machine: Path) -> None:
    for number in ("9.6", "15", "18"):
        install(machine / "debian" / number / "bin")
    assert find_programs() == machine / "debian" / "18" / "bin"


def test_one_without_initdb_is_passed_over(machine: Path) -> None:
    (install(machine / "debian" / "18" / "bin") / "initdb").unlink()
    found = install(machine / "debian" / "15" / "bin")
    assert find_programs() == found


def test_the_version_is_told_without_what_a_packager_adds(machine: Path) -> None:
    assert version(install(machine, "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")) == "15.18"


@pytest.mark.parametrize("answer", ["postgres (PostgreSQL) 9.6.24", "postgres (PostgreSQL) 12.22"])
def test_a_version_that_is_too_old_is_refused(machine: Path, answer: str) -> None:
    with pytest.raises(PostgresUnavailable, match="too old"):
        version(install(machine, answer))


def test_one_that_does_not_run(machine: Path) -> None:
    folder = install(machine)
    (folder / "postgres").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(PostgresUnavailable, match="does not run"):
        version(folder)


def test_root_runs_it_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    runner = find_runner()
    assert runner.uid != 0
    assert runner.prefix[:2] == ("/usr/bin/setpriv", f"--reuid={runner.uid}")


def test_root_without_setpriv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PostgresUnavailable, match="no setpriv"):
        find_runner()


def test_others_run_it_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    runner = find_runner()
    assert (runner.uid, runner.prefix) == (1234, ())
