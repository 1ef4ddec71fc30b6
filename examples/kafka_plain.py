"""A sentence submitted as a plain Kafka record and its sentiment read from the events, with confluent-kafka alone.

Needs a service on Kafka with the model text_classification. docs/kafka-records.md explains each step.
    python examples/kafka_plain.py [BROKER [SENTENCE]]
"""

import hashlib
import os
import sys
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition

BROKER = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"
SENTENCE = sys.argv[2] if len(sys.argv) > 2 else "What a wonderful day."
PREFIX = os.environ.get("FOREBAY_KAFKA_PREFIX", "forebay")
TENANT, MODEL, SOURCE = "default", "text_classification", "/examples/plain"
REQUESTS, EVENTS = f"{PREFIX}.requests.{MODEL}.normal", f"{PREFIX}.events"


def job_id(event: str, value: bytes) -> str:
    """The id of the job that a record with this `ce_id` and this value will be."""
    lines = ["forebay.foreign.v1", TENANT, MODEL, "event", SOURCE, event, hashlib.sha256(value).hexdigest()]
    octets = bytearray(hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).digest())
    octets[6], octets[8] = octets[6] & 0x0F | 0x80, octets[8] & 0x3F | 0x80
    return f"{uuid.UUID(bytes=bytes(octets[:16]))}-{octets[16:24].hex()}"


consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "unused", "enable.auto.commit": False})
parts = [TopicPartition(EVENTS, part) for part in consumer.list_topics(EVENTS, 10).topics[EVENTS].partitions]
# Where the events end before the job exists: nothing of it can be missed.
consumer.assign([TopicPartition(EVENTS, part.partition, consumer.get_watermark_offsets(part)[1]) for part in parts])

event, value, reports = str(uuid.uuid4()), SENTENCE.encode(), []
headers = {"ce_source": SOURCE, "ce_id": event, "content-type": "text/plain"}
producer = Producer({"bootstrap.servers": BROKER, "acks": "all", "enable.idempotence": True})
producer.produce(REQUESTS, value, headers=headers, on_delivery=lambda error, _: reports.append(error))
producer.flush(10)
if reports != [None]:
    sys.exit(f"the broker did not take the record: {reports}")  # to be sent again, with the same ce_id

key = f"{TENANT}/{job_id(event, value)}"
for record in iter(lambda: consumer.poll(60), None):
    kind = dict(record.headers() or []).get("ce_type", b"").decode()
    if record.key() == key.encode() and kind.endswith((".succeeded.v1", ".failed.v1", ".canceled.v1", ".expired.v1")):
        print(record.value().decode() or dict(record.headers())["forebay-error"].decode())
        sys.exit(not kind.endswith(".succeeded.v1"))  # the first final event decides
sys.exit("no event for a minute: is a worker running?")
