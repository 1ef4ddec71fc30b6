"""`forebay webhooks`: who is told of the tenant's jobs, and what signs it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from forebay.cli.deliveries import deliveries, redeliver
from forebay.cli.durations import seconds_of
from forebay.cli.jobs import to_the_second
from forebay.cli.options import AsJson, Url
from forebay.cli.webhook_trial import trial
from forebay.core.webhook import WebhookEvent

COLUMNS = ("id", "url", "events", "state", "description")

EndpointId = Annotated[str, typer.Argument(metavar="ID", help="As `webhooks ls` shows it.", show_default=False)]
PerhapsId = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]",
        help="Of an endpoint; if left out, what signs messages to addresses that jobs name themselves.",
        show_default=False,
    ),
]

webhooks = typer.Typer(
    name="webhooks",
    help="Webhook endpoints and what signs (with a key that has the scope admin); deliveries, and sending them again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@webhooks.command()
def add(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where messages are sent.", show_default=False)],
    event: Annotated[
        list[WebhookEvent] | None,
        typer.Option(help="What it hears of; repeatable. completed if left out.", show_default=False),
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Add an endpoint, which is told of every job from now on, and show the secret that signs."""
    from forebay.cli.screen import print_json
    from forebay.cli.service import Service, service_url

    asked: dict[str, Any] = {"url": address, "description": description}
    if event:
        asked["events"] = list(event)
    with Service(service_url(url)) as service:
        made = service.add_endpoint(asked)
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['id']} hears {' '.join(made['events'])}; what it gets is signed with", err=True)
    typer.echo(made["secret"])


@webhooks.command()
def ls(as_json: AsJson = False, url: Url = None) -> None:
    """List the endpoints, the oldest first; never what signs."""
    from forebay.cli.screen import console, print_json, table
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.endpoints()
    if as_json:
        print_json(found)
        return
    if not found:
        console(err=True).print("no webhook endpoints")
        return
    rows = [(one["id"], one["url"], " ".join(one["events"]), _state(one), one.get("description", "")) for one in found]
    console().print(table(COLUMNS, rows))


@webhooks.command()
def rm(endpoint_id: EndpointId, url: Url = None) -> None:
    """Remove an endpoint: nothing is sent to it any more, what waits neither."""
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        service.remove_endpoint(endpoint_id)
    typer.echo(f"{endpoint_id} is removed")


@webhooks.command()
def enable(endpoint_id: EndpointId, as_json: AsJson = False, url: Url = None) -> None:
    """Tell an endpoint again that was disabled, on request or since it failed for too long."""
    _switch(endpoint_id, True, as_json, url)


@webhooks.command()
def disable(endpoint_id: EndpointId, as_json: AsJson = False, url: Url = None) -> None:
    """Tell an endpoint nothing until it is enabled."""
    _switch(endpoint_id, False, as_json, url)


def _switch(endpoint_id: str, enabled: bool, as_json: bool, url: str | None) -> None:
    from forebay.cli.screen import print_json
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        changed = service.change_endpoint(endpoint_id, {"enabled": enabled})
    if as_json:
        print_json(changed)
        return
    typer.echo(f"{endpoint_id} is {_state(changed)}")


@webhooks.command()
def secret(endpoint_id: PerhapsId = None, as_json: AsJson = False, url: Url = None) -> None:
    """Show what signs."""
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.webhook_secret(endpoint_id)
    _show(found, as_json)


@webhooks.command()
def rotate(
    endpoint_id: PerhapsId = None,
    overlap: Annotated[str, typer.Option(help="How long the secret so far signs beside the new one.")] = "24h",
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Make a new secret and show it."""
    from forebay.cli.service import Service, service_url

    overlap_s = seconds_of(overlap)
    with Service(service_url(url)) as service:
        found = service.rotate_webhook_secret(endpoint_id, overlap_s)
    _show(found, as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    """The newest alone on standard output, so that it can be put into a file."""
    from forebay.cli.screen import print_json

    if as_json:
        print_json(found)
        return
    if "previous" in found:
        typer.echo(f"the secret before it signs too until {to_the_second(found['previous']['until'])}", err=True)
    typer.echo(found["secret"])


def _state(endpoint: dict[str, Any]) -> str:
    if not endpoint["enabled"]:
        return f"disabled: {endpoint['disabled_reason']}" if "disabled_reason" in endpoint else "disabled"
    return f"failing since {to_the_second(endpoint['failing_since'])}" if "failing_since" in endpoint else "enabled"


webhooks.command()(deliveries)
webhooks.command()(redeliver)
webhooks.command("test")(trial)
