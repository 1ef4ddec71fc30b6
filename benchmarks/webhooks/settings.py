"""What lets a service on this machine send to a receiver on it."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.webhooks.receiver import Receiver
from dev.kafka.ports import HOST


def sends_to(receiver: Receiver) -> Mapping[str, str]:
    return {
        "webhook_allow_networks": f"{HOST}/32",
        "webhook_http_hosts": HOST,
        "webhook_ports": str(receiver.port),
    }
