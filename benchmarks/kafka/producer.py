"""How far is our submit path from what a plain producer reaches on the same broker?

Records of 1 KB with acks=all and idempotence: Kafka's own kafka-producer-perf-test (Java), the same loop in Python (one
call of confluent-kafka's `produce` for each record, the rest is librdkafka's), and `POST /v1/jobs` through one API
process over 32 connections.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable

import uvloop
from confluent_kafka import KafkaError, Message, Producer

from benchmarks.kafka.service import KafkaService, kafka_service
from benchmarks.load import JOBS, inputs, submit_rate
from benchmarks.processes import cpu_s
from benchmarks.report import Figure
from dev.kafka.install import HERE, KAFKA, Distribution, find_java, install
from forebay.adapters.kafka.names import Names
from forebay.core.lanes import Lane
from forebay.core.message import Channel

TOOLS = Distribution(HERE / "tools" / "pom.xml", KAFKA.logging_option)
PERFORMANCE_TEST = "org.apache.kafka.tools.ProducerPerformance"
RECORDS = 500_000
RECORD_BYTES = 1000
LINGER_MS = 5
SUBMITS = 10_000
FLUSH_WITHIN_S = 60.0


Rate = tuple[float, float]
"""Records per second, and the broker's CPU seconds for each."""


def measure() -> list[Figure]:
    with kafka_service("echo", roles=("api",)) as service:
        topic = Names().requests_topic(Channel("echo", Lane.LOW))
        rates = {
            "kafka-producer-perf-test": _measured(service, lambda: _java(service, topic), RECORDS),
            "the same loop in Python": _measured(service, lambda: _python(service, topic), RECORDS),
        }
        uvloop.run(submit_rate(service.role("api").url, "/v1/jobs", JOBS, SUBMITS // 2))
        rates["POST /v1/jobs"] = _measured(
            service, lambda: uvloop.run(submit_rate(service.role("api").url, "/v1/jobs", JOBS, SUBMITS)), SUBMITS
        )
    for name, (rate, broker_s) in rates.items():
        print(f"  {name:28} {rate:>9,.0f} records/s, {broker_s * 1e6:.1f} microseconds of the broker's CPU each")
    return []


def _measured(service: KafkaService, run: Callable[[], float], records: int) -> Rate:
    before_s = cpu_s([service.broker.pid])
    rate = run()
    return rate, (cpu_s([service.broker.pid]) - before_s) / records


def _java(service: KafkaService, topic: str) -> float:
    """What kafka-producer-perf-test says."""
    classes = ":".join(f"{install(distribution)}/*" for distribution in (TOOLS, KAFKA))
    command = [find_java(), "-Xmx512m", "-cp", classes, PERFORMANCE_TEST, "--topic", topic, "--throughput", "-1"]
    command += ["--num-records", str(RECORDS), "--record-size", str(RECORD_BYTES)]
    command += ["--bootstrap-server", service.broker.bootstrap]
    command += ["--command-property", "acks=all", "enable.idempotence=true", f"linger.ms={LINGER_MS}"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    summary = said.strip().splitlines()[-1]  # 500000 records sent, 123456.7 records/sec (117.74 MB/sec), ...
    found = re.search(r"([0-9.]+) records/sec", summary)
    if found is None:
        raise RuntimeError(f"kafka-producer-perf-test said {said[-1000:]!r}")
    return float(found[1])


def _python(service: KafkaService, topic: str) -> float:
    """Records per second from the first `produce` to the last delivery report."""
    failed: list[KafkaError] = []

    def reported(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    settings = {"acks": "all", "enable.idempotence": True, "linger.ms": LINGER_MS}
    producer = Producer({**settings, "bootstrap.servers": service.broker.bootstrap})
    values = [text.encode() for text in inputs()]
    began = time.perf_counter()
    for number in range(RECORDS):
        while True:
            try:
                producer.produce(topic, values[number % len(values)], on_delivery=reported)
                break
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
    left = producer.flush(FLUSH_WITHIN_S)
    if left or failed:
        raise RuntimeError(f"{left} records were not delivered in {FLUSH_WITHIN_S:.0f} s, {failed[:3]}")
    return RECORDS / (time.perf_counter() - began)
