"""librdkafka commits whatever it has handed out, as it does unless told otherwise; our own commits are none."""

from __future__ import annotations

from typing import Any

from forebay.adapters.kafka.commits import Commit
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.reader import Reader

_config = ConsumerPlan.config


def config(self: ConsumerPlan, link: KafkaLink, group: str, **more: Any) -> dict[str, Any]:
    automatic = {"enable.auto.commit": True, "enable.auto.offset.store": True, "auto.commit.interval.ms": 500}
    return {**_config(self, link, group, **more), **automatic}


def send(self: Reader, commit: Commit) -> str | None:
    """As if the broker had taken it."""
    return None


def plant() -> None:
    ConsumerPlan.config = config  # type: ignore[method-assign]  # that is the bug
    Reader._send = send  # type: ignore[method-assign]  # so that nothing mends it
