"""Where Kafka cannot be run, the message says what is missing and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.kafka import install as installer
from dev.kafka.install import KAFKA, KafkaUnavailable, find_java, install


def write_command(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing on it but a Java 21, and nothing installed yet."""
    monkeypatch.setattr(installer, "INSTALLED", tmp_path / "installed")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    write_command(tmp_path / "bin" / "java", "echo 'openjdk version \"21.0.2\" 2024-01-16' >&2")
    return tmp_path


def test_no_java(home: Path) -> None:
    (home / "bin" / "java").unlink()
    with pytest.raises(KafkaUnavailable, match=r"found none: apt-get install openjdk-17"):
        find_java()


@pytest.mark.parametrize("version", ["11.0.22", "1.8.0_402"])
def test_an_old_java(home: Path, version: str) -> None:
    write_command(home / "bin" / "java", f"echo 'openjdk version \"{version}\" 2024-01-16' >&2")
    with pytest.raises(KafkaUnavailable, match=rf"is openjdk version \"{version}\""):
        find_java()


def test_no_maven(home: Path) -> None:
    with pytest.raises(KafkaUnavailable, match="there is no mvn: apt-get install maven"):
        install(KAFKA)


def test_maven_fails_and_what_it_said_is_told(home: Path) -> None:
    write_command(home / "commands" / "mvn", "echo 'Could not transfer artifact'; exit 1")
    with pytest.raises(KafkaUnavailable, match="Could not transfer artifact"):
        install(KAFKA)
    assert not KAFKA.folder.exists()


def test_maven_is_asked_once(home: Path) -> None:
    copies = 'for option; do case "$option" in -DoutputDirectory=*) /bin/mkdir "${option#*=}";; esac; done'
    write_command(home / "commands" / "mvn", f"echo asked >>{home}/log; {copies}")
    assert install(KAFKA) == install(KAFKA) == KAFKA.folder
    assert (home / "log").read_text() == "asked\n"
