"""The commands, put together, and what happens to their errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import forebay
from forebay.cli.batch import batch
from forebay.cli.dlq import dlq
from forebay.cli.doctor import doctor
from forebay.cli.jobs import jobs
from forebay.cli.keys import keys
from forebay.cli.models import models
from forebay.cli.options import SettingsCommand
from forebay.cli.program import program
from forebay.cli.queues import queues
from forebay.cli.quotas import quotas
from forebay.cli.serving import run, up
from forebay.cli.store import store
from forebay.cli.submit import SubmitCommand, submit
from forebay.cli.topics import topics
from forebay.cli.webhooks import webhooks
from forebay.core.errors import ForebayError

app = typer.Typer(
    name="forebay",
    help="Asynchronous model inference: submit an input, get an id at once, wait for the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs a quarter of a second more than the plain one
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=SettingsCommand)(up)
app.command(cls=SettingsCommand)(run)
app.command(cls=SubmitCommand)(submit)
app.command()(batch)
app.add_typer(jobs)
app.add_typer(dlq)
app.add_typer(keys)
app.add_typer(quotas)
app.add_typer(webhooks)
app.add_typer(models)
app.command()(queues)
app.add_typer(topics)
app.add_typer(store)
app.command(cls=SettingsCommand)(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command (those of the process by default) and end the process with its exit code.

    0: done, and for `submit` succeeded. 1: not done, with one message that says why. 2: the command line is wrong.
    """
    try:
        app(args=arguments, prog_name=program())
    except ForebayError as error:
        from forebay.cli.screen import visible

        typer.secho(f"forebay: {visible(error.message)}", err=True, fg=typer.colors.RED)
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"forebay {forebay.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass
