"""`forebay topics`: the topics that Kafka needs for the models here. Nothing else ever creates one."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import to_builtins

from forebay.cli.options import AsJson, SettingsCommand, settings_of
from forebay.cli.program import program
from forebay.core.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.assembly.kafka import Difference
    from forebay.settings import Settings

topics = typer.Typer(
    name="topics",
    help="Compare, create and change the topics on Kafka; list the rights that each role needs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class AclRole(StrEnum):
    """Here as well as in adapters/kafka/acls.py (a test compares them): a command line is read before Kafka's library,
    which may not be installed, is imported."""

    API = "api"
    WORKER = "worker"
    PROJECTOR = "projector"
    SCHEDULER = "scheduler"
    WEBHOOKS = "webhooks"
    ADMIN = "admin"


@topics.command(cls=SettingsCommand)
def plan(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what differs from what should be. Exit code 1 if something does."""
    settings = _on_kafka(context)
    from forebay.assembly.kafka import topics_of

    _show(topics_of(settings, _models(settings)).plan(), as_json)


@topics.command(cls=SettingsCommand)
def apply(context: typer.Context, as_json: AsJson = False) -> None:
    """Create what is missing and change what can be changed; say what is left. Exit code 1 if something is.

    It never deletes anything, and can be repeated.
    """
    settings = _on_kafka(context)
    from forebay.assembly.kafka import topics_of

    _show(topics_of(settings, _models(settings)).apply(), as_json)


@topics.command(cls=SettingsCommand)
def acls(
    context: typer.Context,
    roles: Annotated[
        list[AclRole] | None, typer.Argument(metavar="[ROLE]...", help="All if none is named.", show_default=False)
    ] = None,
    principal: Annotated[
        str, typer.Option(help="Whom to allow; {role} is put in.", metavar="PRINCIPAL")
    ] = "User:forebay-{role}",
    as_json: AsJson = False,
) -> None:
    """Print the kafka-acls.sh commands that give each role the rights it needs, and no others. Asks no broker."""
    settings = _on_kafka(context)
    from forebay.assembly.kafka import Role, acls_of
    from forebay.cli.screen import print_json

    models = _models(settings)
    found = {role.value: acls_of(settings, Role(role.value), models) for role in roles or list(AclRole)}
    if as_json:
        print_json({role: to_builtins(rules) for role, rules in found.items()})
        return
    for role, rules in found.items():
        typer.echo(f"# {role}")
        for rule in rules:
            typer.echo(f"{rule.command(principal.format(role=role))}  # {rule.why}")


def _on_kafka(context: typer.Context) -> Settings:
    """Raises Misconfigured where there are no topics to speak of."""
    settings = settings_of(context)
    if not settings.on_kafka:
        raise Misconfigured(
            f"queue is {settings.queue}, which has no topics; set it to kafka://HOST:PORT (FOREBAY_QUEUE, --queue)"
        )
    return settings


def _models(settings: Settings) -> Sequence[str]:
    """Those of the models folder that can be served, or those that the setting `models` names."""
    from forebay.catalog import read_models

    return read_models(settings.models_dir, settings.trusted_models).names(settings.models)


def _show(differences: Sequence[Difference], as_json: bool) -> None:
    from forebay.cli.screen import console, print_json, table

    if as_json:
        print_json([to_builtins(one) for one in differences])
    elif differences:
        rows = [(one.topic, one.text, f"{program()} topics apply" if one.applicable else "") for one in differences]
        console().print(table(("topic", "what differs", "remedy"), rows))
    else:
        console().print("topics are as they should be")
    if differences:
        raise typer.Exit(1)
