"""Where webhooks may go, by the settings."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_network

from forebay.assembly.access import is_loopback
from forebay.core.egress import EgressPolicy
from forebay.settings import Settings


def egress_policy(settings: Settings, *, whole: bool) -> EgressPolicy:
    """`whole`: every role runs in this process. If only this machine can reach it, it may send to this machine: that is
    somebody at a desk, with a receiver of their own beside it."""
    return EgressPolicy(
        allow_networks=tuple(ip_network(text) for text in settings.webhook_allow_networks),
        http_hosts=frozenset(_as_in_a_target(host) for host in settings.webhook_http_hosts),
        ports=frozenset(settings.webhook_ports),
        loopback=whole and is_loopback(settings.host),
    )


def _as_in_a_target(host: str) -> str:
    return str(IPv6Address(host)) if ":" in host else host.lower()
