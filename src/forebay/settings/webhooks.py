"""The settings of webhooks: where they may go, and how long a try may take."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from forebay.settings.meaning import Meaning, Seconds
from forebay.settings.service import ServiceSettings

NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")


def _network(text: str) -> str:
    ip_network(text)  # raises ValueError, as pydantic wants it
    return text


def _host(text: str) -> str:
    if not NAME.fullmatch(text):
        IPv6Address(text)
    return text


class WebhookSettings(ServiceSettings):
    """With the service's own."""

    webhook_allow_networks: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...],
        Meaning(
            "Networks that webhooks may go to though they are not public, such as that of your own receivers. Never to "
            "where clouds keep their metadata, nor to what is link-local or multicast, whatever is allowed.",
            "None: whoever may submit a job names its webhooks, and the service stands beside databases.",
            "networks in CIDR notation, separated by commas, such as 10.20.0.0/16,fd12::/64",
        ),
    ] = ()
    webhook_http_hosts: Annotated[
        tuple[Annotated[str, AfterValidator(_host)], ...],
        Meaning(
            "Hosts that webhooks may go to by http://, as they stand in the URL, at port 80 or one of `webhook_ports`.",
            "None: a webhook is signed, and not hidden.",
            "host names or IP addresses, separated by commas",
        ),
    ] = ()
    webhook_ports: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65535)], ...],
        Meaning(
            "Ports that webhooks may go to.",
            "That of https: no other service is talked to by chance or on purpose.",
            "whole numbers, 1 to 65535, separated by commas",
        ),
    ] = (443,)
    webhook_timeout_s: Annotated[
        Seconds,
        Meaning(
            "How long a try of a delivery may take, from looking up the name to the status of the answer.",
            "The least that Standard Webhooks names: who wants longer should answer first and work then.",
            "seconds, more than 0",
        ),
    ] = 15.0
    webhook_disable_after_s: Annotated[
        Seconds,
        Meaning(
            "An endpoint that has answered nothing well for so long is disabled, and what waits for it is parked.",
            "Three days: a long weekend's outage loses nothing, as the tries of one message take a little longer.",
            "seconds, more than 0",
        ),
    ] = 3 * 86_400.0
