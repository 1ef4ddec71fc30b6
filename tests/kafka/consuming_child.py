"""Run by tests that kill or stop a consumer: obeys one JSON line after another, and answers each with one.

usage: consuming_child.py SETTINGS, a JSON object of what KafkaPlace.child tells.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import msgspec
import structlog
from tests.kafka.client import open_up
from tests.kafka.queues import CHANNEL, TIERS, number_of, receive_all

from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.queue import KafkaQueue
from forebay.core import crash
from forebay.core.errors import Revoked
from forebay.core.message import ReceivedMessage
from forebay.ports.queue import Consumer, Durability


def die_at(point: str) -> None:
    def reach(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    crash.arm(reach)


async def main(settings: dict[str, Any]) -> None:
    link = KafkaLink(bootstrap=settings.pop("bootstrap"), prefix=settings.pop("prefix"))
    publisher = Publisher(link)
    await open_up(publisher)
    queue = KafkaQueue(link, publisher, durability=Durability.PROCESS, tiers=TIERS, **settings)
    consumer = queue.consumer(CHANNEL)
    hand: dict[int, ReceivedMessage] = {}
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        answer = await obey(consumer, hand, msgspec.json.decode(line))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


async def obey(consumer: Consumer, hand: dict[int, ReceivedMessage], told: dict[str, Any]) -> Any:
    chosen = [hand[number] for number in told["numbers"]]
    match told["what"]:
        case "receive":
            received = await receive_all(consumer, told["count"])
            hand.update((number_of(one), one) for one in received)
            return [(number_of(one), one.attempt, one.interruptions) for one in received]
        case "begin":
            try:
                await consumer.begin(chosen)
            except Revoked:
                return "revoked"
            return "begun"
        case "ack":
            await consumer.ack(chosen)
        case "nack":
            await consumer.nack(chosen)
        case "holds":
            return [number for number in told["numbers"] if consumer.holds(hand[number])]
        case "delay":
            await consumer.nack(chosen, 0.01)
        case "close":
            await consumer.close()
        case "die at":
            die_at(told["point"])
    return "done"


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(msgspec.json.decode(sys.argv[1])))
