"""Brings Kafka, or another Java server, with all it needs at run time into `.kafka/`, once per version; finds Java."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
INSTALLED = HERE.parents[1] / ".kafka"
"""Ignored by git. Not .tools, which dev/setup.sh clears when it brings a newer uv."""

JAVA_AT_LEAST = 17
"""Kafka 4 brokers need 17 (kafka.apache.org/documentation, "Java version"); 3.9 runs on it too."""

RESOLVE_AT_MOST_S = 900
TAIL = 2000
INSTALL_JAVA = "apt-get install openjdk-17-jre-headless (Debian, Ubuntu), brew install openjdk (macOS) or JAVA_HOME"
INSTALL_MAVEN = "apt-get install maven (Debian, Ubuntu), brew install maven (macOS)"


class KafkaUnavailable(Exception):
    """This machine cannot run Kafka (or the other server); the message says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A pom, and the file that configures the logging of what it resolves."""

    pom: Path
    logging_option: str
    name: str = "Kafka"

    @property
    def version(self) -> str:
        version = ElementTree.parse(self.pom).findtext("{*}version")
        assert version, f"{self.pom} has no version"
        return version

    @property
    def folder(self) -> Path:
        """Where its jars are, or would be: a changed pom has another folder."""
        pom = self.pom.read_bytes()
        return INSTALLED / f"{self.name.lower()}-{self.version}-{hashlib.sha256(pom).hexdigest()[:8]}"


KAFKA = Distribution(HERE / "pom.xml", f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}")
KAFKA_WITH_ZOOKEEPER = Distribution(
    HERE / "zookeeper" / "pom.xml", f"-Dlog4j.configuration={(HERE / 'zookeeper' / 'log4j.properties').as_uri()}"
)


def install(distribution: Distribution) -> Path:
    """The folder with the jars. Maven is asked only when they are missing; processes that ask at once wait for one.

    Raises KafkaUnavailable.
    """
    find_java(distribution.name)
    if distribution.folder.exists():
        return distribution.folder
    INSTALLED.mkdir(exist_ok=True)
    with open(INSTALLED / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not distribution.folder.exists():
            _resolve(distribution)
    return distribution.folder


def find_java(needed_by: str = KAFKA.name) -> str:
    """The command of a Java that is new enough: JAVA_HOME's, or else the PATH's. Raises KafkaUnavailable."""
    home = os.environ.get("JAVA_HOME")
    command = str(Path(home) / "bin" / "java") if home else "java"
    try:
        answer = subprocess.run([command, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise KafkaUnavailable(
            f"{needed_by} needs Java {JAVA_AT_LEAST} or newer, found none: {INSTALL_JAVA}"
        ) from error
    # `openjdk version "17.0.15" 2025-04-15`; Java 8 says "1.8.0_402".
    version = re.search(r'version "(\d+)', answer.stderr)
    if version is None or int(version[1]) < JAVA_AT_LEAST:
        found = answer.stderr.partition("\n")[0]
        raise KafkaUnavailable(f"{needed_by} needs Java {JAVA_AT_LEAST} or newer, {command} is {found}: {INSTALL_JAVA}")
    return command


def _resolve(distribution: Distribution) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(f"{distribution.name} is brought by Maven, and there is no mvn: {INSTALL_MAVEN}")
    unfinished = distribution.folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [maven, "--quiet", "--batch-mode", "--strict-checksums", "-Dstyle.color=never"]
    command += ["--file", str(distribution.pom), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=RESOLVE_AT_MOST_S)
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr)[-TAIL:]
        raise KafkaUnavailable(
            f"Maven could not bring {distribution.name} {distribution.version}; is it online?\n{said}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise KafkaUnavailable(f"Maven took more than {RESOLVE_AT_MOST_S} s to bring {distribution.name}") from error
    unfinished.rename(distribution.folder)
