"""`forebay up` and `forebay run`: a service in this process, until it is told to stop."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forebay.cli.address import AddressFile
from forebay.cli.options import settings_of

if TYPE_CHECKING:
    from rich.console import Console

    from forebay.assembly import Addresses
    from forebay.settings import Settings

ReadyFile = Annotated[
    Path | None,
    typer.Option("--ready-file", help="Write addresses as JSON to this file once ready.", show_default=False),
]


class Role(StrEnum):
    API = "api"
    WORKER = "worker"
    PROJECTOR = "projector"
    SCHEDULER = "scheduler"
    WEBHOOKS = "webhooks"


def up(context: typer.Context, ready_file: ReadyFile = None) -> None:
    """Run the whole service in this process, until Ctrl-C."""
    settings = settings_of(context)  # first, so that a mistake is told before everything is imported

    from forebay.cli.banner import print_banner
    from forebay.cli.screen import console

    screen = console()
    begun = time.monotonic()

    def on_ready(addresses: Addresses) -> None:
        print_banner(screen, settings, addresses, time.monotonic() - begun)

    _serve(settings, tuple(Role), screen, on_ready, ready_file)


def run(
    context: typer.Context,
    roles: Annotated[
        list[Role],
        typer.Argument(metavar="ROLE...", help="api, worker, projector, scheduler or webhooks.", show_default=False),
    ],
    ready_file: ReadyFile = None,
) -> None:
    """Run some roles of a service in this process, until Ctrl-C."""
    settings = settings_of(context)

    from forebay.cli.screen import console

    screen = console()

    def on_ready(addresses: Addresses) -> None:
        screen.print(f"{', '.join(roles)} ready", *([f"at {addresses.api_url}"] if addresses.api_url else []))

    _serve(settings, tuple(roles), screen, on_ready, ready_file)


def _serve(
    settings: Settings,
    roles: tuple[Role, ...],
    screen: Console,
    on_ready: Callable[[Addresses], None],
    ready_file: Path | None,
) -> None:
    import forebay
    from forebay import assembly
    from forebay.telemetry.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    screen.print(f"forebay {forebay.__version__} is starting, data in {settings.data_dir}")

    address = AddressFile(settings.data_dir)

    def ready(addresses: Addresses) -> None:
        if addresses.api_url:
            address.write(addresses.api_url)
        on_ready(addresses)
        if ready_file is not None:
            write_ready_file(ready_file, addresses)

    def stopping() -> None:
        screen.print(
            f"stopping: what is in hand is finished first, for at most {settings.shutdown_grace_s:g} s "
            "(shutdown_grace_s); a second Ctrl-C kills"
        )

    try:
        assembly.run(settings, tuple(role.value for role in roles), on_ready=ready, on_stop=stopping)
    finally:
        address.remove()
    kept = "" if settings.queue == "memory://" else "; what was not finished is kept and runs at the next start"
    screen.print(f"stopped{kept}")


def write_ready_file(path: Path, addresses: Addresses) -> None:
    """All of it or nothing, so that a reader never meets a half-written file."""
    import forebay

    document = {
        "pid": os.getpid(),
        "version": forebay.__version__,
        "api_url": addresses.api_url,
        "admin_url": addresses.admin_url,
        "data_dir": str(addresses.data_dir),
        "durability": addresses.durability,
        "models": [
            {"name": one.model, "version": one.version, "status": one.status.value, "reason": one.reason}
            for one in addresses.models
        ],
    }
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
