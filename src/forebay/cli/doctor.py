"""`forebay doctor`: what would keep a service from starting or working here, each with its remedy."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from msgspec import Struct, to_builtins

from forebay.cli.address import address_in
from forebay.cli.options import AsJson, settings_of
from forebay.cli.program import program
from forebay.core.errors import FolderInUse, ForebayError, Misconfigured, Unavailable

if TYPE_CHECKING:
    from forebay.settings import Settings

OK, WARNING, WRONG = "ok", "warning", "wrong"

LEAST_PYTHON = (3, 11)
LEAST_SQLITE = (3, 51, 3)
"""Earlier ones can damage the file when a WAL reset meets a checkpoint (sqlite.org/wal.html, "WAL-reset bug")."""
LEAST_FREE_BYTES = 1024**3
BUILT_AT = 1_764_547_200.0
"""2025-12-01: a clock that says earlier than this version was written is wrong. Ids and expiry follow the clock."""


class Finding(Struct, frozen=True):
    """One thing looked at. `fix` is what to do about it, "" for nothing."""

    about: str
    state: str
    says: str
    fix: str = ""


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Look for what would keep a service from working here. Exit code 1 if something would."""
    from forebay.cli.screen import console, print_json

    findings = examine(settings_of(context))
    if as_json:
        print_json([to_builtins(finding) for finding in findings])
    else:
        screen = console()
        for finding in findings:
            screen.print(*_line(finding))
            if finding.fix:
                screen.print(f"{'':10}{finding.fix}")
    if any(finding.state == WRONG for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which a start would meet them."""
    checks: list[Callable[[Settings], Iterable[Finding]]] = [
        _python,
        _sqlite,
        _clock,
        _data_dir,
        _models,
        _kafka,
        _ports,
    ]
    findings: list[Finding] = []
    for check in checks:
        findings += check(settings)
    return findings


def _line(finding: Finding) -> tuple[object, ...]:
    from rich.text import Text

    from forebay.cli.screen import visible

    style = {OK: "green", WARNING: "yellow", WRONG: "red"}[finding.state]
    return Text(f"{finding.state:9}", style=style), f"{finding.about}: {visible(finding.says)}"


def _python(settings: Settings) -> Iterable[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < LEAST_PYTHON:
        yield Finding("Python", WRONG, version, "install Python 3.11 or newer")
    else:
        yield Finding("Python", OK, f"{version} at {sys.executable}")


def _sqlite(settings: Settings) -> Iterable[Finding]:
    """apsw carries the SQLite of its own version number."""
    from importlib.metadata import version

    found = version("apsw")
    if tuple(int(part) for part in found.split(".")[:3]) < LEAST_SQLITE:
        yield Finding("SQLite", WRONG, f"apsw {found} may damage the file", "python -m pip install --upgrade apsw")
    else:
        yield Finding("SQLite", OK, f"apsw {found}")


def _clock(settings: Settings) -> Iterable[Finding]:
    now = time.time()
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    newest = max(
        (entry.stat().st_mtime for entry in settings.data_dir.glob("*")) if settings.data_dir.is_dir() else (),
        default=0.0,
    )
    if now < BUILT_AT:
        yield Finding(
            "clock", WRONG, f"{shown} is before this version was made", "set the clock, or start an NTP client"
        )
    elif newest > now + 60:
        yield Finding("clock", WARNING, f"{shown}, yet files in the data folder are newer", "was the clock set back?")
    else:
        yield Finding("clock", OK, shown)


def _data_dir(settings: Settings) -> Iterable[Finding]:
    folder = settings.data_dir
    near = folder
    while not near.exists():
        near = near.parent
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        yield Finding("data", WRONG, f"{near} cannot be written to", "choose another folder with --data-dir")
        return
    free = shutil.disk_usage(near).free
    if free < LEAST_FREE_BYTES:
        yield Finding(
            "disk", WARNING, f"{free / 1e9:.1f} GB free below {near}", "free some space, or choose --data-dir"
        )
    else:
        yield Finding("disk", OK, f"{free / 1e9:.1f} GB free")
    yield _lock(folder) if folder.exists() else Finding("data", OK, f"{folder} will be made at the first start")


def _lock(folder: Path) -> Finding:
    from forebay.adapters.sqlite.folder_lock import FolderLock

    lock = FolderLock(folder)
    try:
        lock.acquire()
    except FolderInUse as error:
        # A running service is the usual reason, so it is no fault in itself.
        there = address_in(folder)
        says = f"{error.message}; a service answers there at {there}" if there else error.message
        return Finding("data", WARNING, says, "nothing to do if that is the service you mean")
    except Misconfigured as error:
        return Finding("data", WRONG, error.message, "choose another folder with --data-dir")
    lock.release()
    return Finding("data", OK, f"{folder}, held by nobody")


def _models(settings: Settings) -> Iterable[Finding]:
    from forebay.catalog import read_models

    try:
        catalog = read_models(settings.models_dir, settings.trusted_models)
    except Misconfigured as error:
        yield Finding("models", WRONG, error.message, "name the folder with --models-dir")
        return
    if catalog.specs:
        yield Finding("models", OK, f"{', '.join(catalog.names())} in {settings.models_dir}")
    elif not catalog.problems:
        yield Finding("models", WARNING, f"none in {settings.models_dir}", "name another folder with --models-dir")
    for name, problems in catalog.problems.items():
        for problem in problems:
            yield Finding("models", WRONG, f"{name}: {problem}", f"`{program()} models validate` checks again")


def _kafka(settings: Settings) -> Iterable[Finding]:
    """Whether a broker answers, and the topics of the models here are as they must be."""
    if not settings.on_kafka:
        return
    try:
        from forebay.assembly.kafka import ask_brokers, topics_of
        from forebay.catalog import read_models

        yield Finding("Kafka", OK, f"{settings.kafka_bootstrap}: {ask_brokers(settings)}")
        catalog = read_models(settings.models_dir, settings.trusted_models)
        differences = topics_of(settings, catalog.names(settings.models)).plan()
    except ImportError as error:
        yield Finding("Kafka", WRONG, f"{error.name} is not installed", "python -m pip install 'forebay[kafka]'")
    except Unavailable as error:
        yield Finding("Kafka", WRONG, error.message, "start the brokers, or name others with --queue kafka://HOST:PORT")
    except Misconfigured as error:
        yield Finding("Kafka", WRONG, error.message, "see docs/kafka.md: settings kafka_*, rights of each role")
    else:
        remedy = f"{program()} topics apply"
        for one in differences:
            yield Finding("topics", WRONG if one.blocking else WARNING, f"{one.topic}: {one.text}", remedy)
        if not differences:
            yield Finding("topics", OK, "as they should be")


def _ports(settings: Settings) -> Iterable[Finding]:
    yield _port("API port", "port", settings.host, settings.port, who_answers=_who)
    yield _port(
        "metrics port", "admin_port", settings.admin_host, settings.admin_port, who_answers=lambda host, port: ""
    )


def _port(about: str, setting: str, host: str, port: int, who_answers: Callable[[str, int], str]) -> Finding:
    if port == 0:
        return Finding(about, OK, "any free one")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        answer = who_answers(host, port)
        if answer:
            return Finding(about, OK, f"{host}:{port}: {answer}")
        return Finding(
            about,
            WARNING,
            f"{host}:{port} cannot be listened on: {error.strerror or error}",
            f"nothing to do if a service of yours runs there; else give --{setting.replace('_', '-')} another, or 0",
        )
    return Finding(about, OK, f"{host}:{port} is free; no service runs there")


def _who(host: str, port: int) -> str:
    """The Forebay service at this address, in words; "" if none answers."""
    from forebay.cli.service import Service

    try:
        with Service(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}") as service:
            health = service.health()
    except ForebayError:
        return ""
    return f"Forebay {health.get('version', '')} runs there, durability {health.get('durability', 'unknown')}"
