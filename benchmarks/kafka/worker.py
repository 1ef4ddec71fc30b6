"""How much of a bare loop's images per second is left when a worker drains a backlog in Kafka?

The loop decodes the same JPEG files and runs EfficientNet-Lite0 at its best batch size, in one process on the same
cores. The worker runs alone with the broker: it starts on 1,500 images that wait, and the times at which the log took
its results count, from the end of its first batches to the last. The broker has run for a while by then: Java compiles
what it does over the first three drains, on the cores that the model wants, and a broker in use has that behind it.
"""

from __future__ import annotations

import statistics
import time

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from benchmarks.bare_loop import PHOTOS, ROOT, best_loop, loop_rate
from benchmarks.kafka.backlog import preload
from benchmarks.kafka.service import KafkaService, kafka_service
from benchmarks.processes import cpu_by_role
from benchmarks.report import Figure, spread
from forebay.adapters.kafka.names import Names
from forebay.core.payload import Payload

MODEL = "image_classification"
IMAGES = 1500
FIRST = 64  # their results are not counted: the worker was not in step yet
WARM_UPS, ROUNDS = 3, 3
GIVE_UP_S = 120.0
SUCCEEDED = b"io.forebay.job.succeeded.v1"


def measure() -> list[Figure]:
    size, threads = best_loop()
    print(f"  best bare loop: batches of {size}, {threads} threads", flush=True)
    photos = [Payload(media_type="image/jpeg", data=photo) for photo in PHOTOS]
    loop: list[float] = []
    worker: list[float] = []
    with kafka_service(MODEL, models_dir=ROOT / "models") as service:
        for number in range(WARM_UPS + ROUNDS):
            preload(service, MODEL, photos, IMAGES)
            rate = _drain_rate(service)
            if number >= WARM_UPS:
                worker.append(rate)
                loop.append(loop_rate(size, threads, IMAGES))
    print(f"  bare loop {spread(loop)} images/s, worker {spread(worker)} images/s")
    return [
        Figure(
            question="Kafka: EfficientNet-Lite0 images/s of the bare loop, draining a backlog",
            measured=statistics.median(worker) / statistics.median(loop),
            goal=0.95,
            at_least=True,
        )
    ]


def _drain_rate(service: KafkaService) -> float:
    """Images per second of a worker that starts now."""
    consumer = _at_the_end_of_events(service.broker.bootstrap)
    try:
        service.start("worker")
        before = cpu_by_role(service.stack().roles)
        logged_s = sorted(_successes(consumer))
        after = cpu_by_role(service.stack().roles)
        used = ", ".join(f"{role} {(after[role] - before[role]) / IMAGES * 1e6:.0f}" for role in after)
        print(f"  microseconds of CPU per image: {used}", flush=True)
        service.stop("worker")
    finally:
        consumer.close()
    return (len(logged_s) - FIRST) / (logged_s[-1] - logged_s[FIRST - 1])


def _at_the_end_of_events(bootstrap: str) -> Consumer:
    topic = Names().events_topic
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "benchmark", "enable.auto.commit": False})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in partitions])
    while consumer.poll(0.5) is not None:  # at the end once nothing comes
        pass
    return consumer


def _successes(consumer: Consumer) -> list[float]:
    """When the log took each of IMAGES results, in seconds."""
    logged_s: list[float] = []
    deadline = time.monotonic() + GIVE_UP_S
    while len(logged_s) < IMAGES:
        for record in consumer.consume(500, 0.2):
            kind = dict(record.headers() or [])["ce_type"]
            if kind == SUCCEEDED:
                logged_s.append(record.timestamp()[1] / 1000)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(logged_s)} of {IMAGES} images after {GIVE_UP_S:.0f} s")
    return logged_s
