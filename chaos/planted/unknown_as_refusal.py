"""When nobody can say whether a job was stored, its caller is told that it was not."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.adapters.kafka.queue import KafkaQueue
from forebay.core.errors import OutcomeUnknown, Unavailable
from forebay.core.message import Channel, Message

_publish = KafkaQueue.publish


async def publish(self: KafkaQueue, channel: Channel, messages: Sequence[Message]) -> None:
    try:
        await _publish(self, channel, messages)
    except OutcomeUnknown as error:
        raise Unavailable(error.message) from error


def plant() -> None:
    KafkaQueue.publish = publish  # type: ignore[method-assign]  # that is the bug
