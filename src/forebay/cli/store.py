"""`forebay store`: the tables that job states are read from."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import typer

from forebay.cli.options import SettingsCommand, settings_of
from forebay.cli.program import program
from forebay.core.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay.projector import Progress
    from forebay.settings import Settings

LEAST_S = 0.001

store = typer.Typer(
    name="store",
    help="Look after the tables that job states are read from.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@store.callback()
def _root() -> None:
    """Keeps `rebuild` a command of its own while it is the only one."""


@store.command(cls=SettingsCommand)
def rebuild(context: typer.Context) -> None:
    """Empty the job states and results and fill them again from the log.

    The log decides what a job's state is, so the same rows come back, for as long as the log still holds everything.
    Meanwhile the API accepts jobs and answers 503 to whoever asks for one. Stopped in the middle it goes on where it
    was when it is run again, and running projectors go on with it. No webhook is sent again. With queue sqlite:// the
    service must be stopped first.
    """
    settings = settings_of(context)
    if "memory://" in (settings.queue, settings.store):
        raise Misconfigured("what is in memory is in the memory of the service: there is nothing to rebuild from here")

    from forebay.telemetry.logs import configure_logs

    configure_logs("warning", settings.log_format)
    began = time.monotonic()
    try:
        records = _with_a_bar(settings)
    except KeyboardInterrupt:
        typer.echo(f"stopped in the middle; go on with: {program()} store rebuild", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{records:,} records applied in {time.monotonic() - began:.1f} s; jobs can be read again")


def _with_a_bar(settings: Settings) -> int:
    """How many records there were."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("rebuilding"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} records"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    first: int | None = None
    with Bar(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("rebuilding", total=0, rate=0.0)

        def show(progress: Progress) -> None:
            nonlocal first
            first = progress.done if first is None else first
            rate = (progress.done - first) / max(time.monotonic() - began, LEAST_S)
            bar.update(task, completed=progress.done, total=progress.total, rate=rate)

        asyncio.run(_rebuild(settings, show))
        return round(bar.tasks[task].total or 0)


async def _rebuild(settings: Settings, on_progress: Callable[[Progress], None]) -> None:
    from forebay.assembly.backends import open_backends
    from forebay.assembly.clocks import foreign_clocks
    from forebay.catalog import read_models
    from forebay.core.foreign import ForeignClocks
    from forebay.projector import rebuild
    from forebay.telemetry.metrics import Metrics

    clocks = ForeignClocks()
    if settings.on_kafka:  # nobody else takes records of other producers
        clocks = foreign_clocks(settings, read_models(settings.models_dir, settings.trusted_models))
    async with open_backends(settings, ("projector",), (), clocks=clocks, whole_log=True) as backends:
        assert backends.store is not None  # a projector has one
        await rebuild(backends.events, backends.store, Metrics(), on_progress)
