"""`forebay webhooks test`: one signed message, sent from here as the service would send it."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import UNSET, Struct, UnsetType, to_builtins

from forebay.cli.options import AsJson, Url, current_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forebay.settings import Settings

TYPE = "webhook.test"


class Outcome(Struct, frozen=True):
    """`says`: in words. `code` is that of a try, "" if it was delivered."""

    webhook_id: str
    code: str
    says: str
    status: int | UnsetType = UNSET
    latency_s: float | UnsetType = UNSET


def trial(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where it is sent.", show_default=False)],
    secret_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File with what signs it, whsec_...; if left out, the tenant's own.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Send a message of the type webhook.test from this machine, by the service's settings of where webhooks may go.

    Exit code 1 unless it was delivered.
    """
    from forebay.cli.screen import console, print_json

    # In no option of its own: all users of a machine can read a command line.
    signing = _of_tenant(url) if secret_file is None else [secret_file.read_text().strip()]
    outcome = asyncio.run(_send(current_settings({}), address, signing))
    if as_json:
        print_json(to_builtins(outcome))
    elif outcome.code:
        console(err=True).print(f"{outcome.webhook_id} is not delivered: {outcome.says}")
    else:
        console().print(f"{outcome.webhook_id} is delivered: {outcome.says}")
    if outcome.code:
        raise typer.Exit(1)


def _of_tenant(url: str | None) -> Sequence[str]:
    from forebay.cli.service import Service, service_url

    with Service(service_url(url)) as service:
        found = service.webhook_secret(None)
    return [found["secret"], *([found["previous"]["secret"]] if "previous" in found else [])]


async def _send(settings: Settings, address: str, signing: Sequence[str]) -> Outcome:
    from forebay.assembly.egress import egress_policy
    from forebay.core.times import to_rfc3339
    from forebay.core.webhook_secret import signed_headers
    from forebay.webhooks.sender import Sender, SendFailed, phrase

    now, webhook_id = time.time(), f"msg_{secrets.token_hex(16)}"
    body = json.dumps({"type": TYPE, "timestamp": to_rfc3339(now), "data": {}}, separators=(",", ":")).encode()
    headers = signed_headers(signing, webhook_id, int(now), body)
    policy = egress_policy(settings, whole=not settings.on_kafka)  # as `forebay up` would have it
    async with Sender(policy, timeout_s=settings.webhook_timeout_s) as sender:
        try:
            reply = await sender.send(address, headers, body)
        except SendFailed as failure:  # which is what the trial is to tell
            return Outcome(webhook_id, failure.code, failure.message)
    says = f"{phrase(reply.status)} after {reply.latency_s:.3f} s"
    return Outcome(webhook_id, "" if 200 <= reply.status < 300 else "status", says, reply.status, reply.latency_s)
