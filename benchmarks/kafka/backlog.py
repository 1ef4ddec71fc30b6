"""Jobs put into Kafka without our API, as many and as fast as a plain producer can."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, Message, Producer

from benchmarks.kafka.service import KafkaService
from forebay.adapters.kafka.names import Names
from forebay.adapters.kafka.records import to_record
from forebay.core.event import JobRequest
from forebay.core.ids import IdMint
from forebay.core.message import Channel
from forebay.core.payload import Payload
from forebay.core.wire import encode_request

FLUSH_WITHIN_S = 120.0
PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 50,
    "compression.type": "zstd",
    "queue.buffering.max.messages": 200_000,
}


def preload(service: KafkaService, model: str, inputs: Sequence[Payload], count: int) -> None:
    """`count` jobs of `model` in the lane normal, as the API writes them. Returns when all are durable."""
    mint = IdMint([service.settings["secrets"].encode()], secrets.token_bytes)
    topic = Names().requests_topic(Channel(model, "normal"))
    producer = Producer({**PRODUCER, "bootstrap.servers": service.broker.bootstrap})
    failed: list[KafkaError] = []

    def reported(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    for number in range(count):
        now = time.time()
        request = JobRequest(
            tenant="default",
            job_id=mint.issue("default", now),
            model=model,
            lane="normal",
            accepted_at=now,
            input=inputs[number % len(inputs)],
        )
        record = to_record(topic, encode_request(request))
        while True:
            try:
                producer.produce(topic, record.value, record.key, headers=list(record.headers), on_delivery=reported)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(FLUSH_WITHIN_S)
    if left or failed:
        raise RuntimeError(f"{left} records were not delivered in {FLUSH_WITHIN_S:.0f} s, {failed[:3]}")
