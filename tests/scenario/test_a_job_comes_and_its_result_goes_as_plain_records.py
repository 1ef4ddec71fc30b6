"""Producers and consumers that know nothing of Forebay but docs/kafka-records.md."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from tests.scenario.conftest import ROOT, Client, Roles

from dev.kafka.broker import Broker
from forebay.core.foreign import ForeignRecord, foreign_job_id
from forebay.core.message import Channel
from forebay.testing.service import RunningService, output_of

WITHIN_S = 60.0
MODELS = ("image_classification", "text_classification")

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]


@pytest.fixture
def roles(tmp_path: Path, kafka: Broker) -> Iterator[Roles]:
    """The example models, one worker; the low lane of one model is acme's."""
    roles = Roles(tmp_path, kafka.bootstrap, "sqlite://", MODELS, models_dir=ROOT / "models", trusted_models="")
    roles.settings["kafka_tenants"] = f"{roles.prefix}.requests.text_classification.low=acme"
    try:
        roles.apply_topics()
        roles.spawn("worker")
        yield roles
    finally:
        roles.kill()


def run(roles: Roles, *command: str) -> list[Any]:
    """What an example prints: the output of its job."""
    environ = {**os.environ, "FOREBAY_KAFKA_PREFIX": roles.prefix}
    done = subprocess.run([*command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    output: list[Any] = json.loads(done.stdout)
    return output


def submit(roles: Roles, model: str, value: bytes, *, lane: str = "normal", **headers: str) -> None:
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": roles.bootstrap, "log_level": 0})
    producer.produce(
        f"{roles.prefix}.requests.{model}.{lane}",
        value,
        headers={name.replace("_", "-") if name[:3] != "ce_" else name: text for name, text in headers.items()},
        on_delivery=lambda error, _: failures.append(error),
    )
    producer.flush(WITHIN_S)
    assert failures == [None]


def first_record(roles: Roles, topic: str, wanted: Callable[[Message], bool]) -> Message:
    """The first of the topic's records that is wanted, once it is there."""
    consumer = Consumer({"bootstrap.servers": roles.bootstrap, "group.id": "unused", "log_level": 0})
    try:
        parts = consumer.list_topics(topic, WITHIN_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, part, 0) for part in parts])
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            record = consumer.poll(1.0)
            if record is not None and record.error() is None and wanted(record):
                return record
    finally:
        consumer.close()
    raise AssertionError(f"no such record on {topic} within {WITHIN_S:g} s")


def headers_of(record: Message) -> dict[str, str]:
    headers = record.headers() or []
    assert isinstance(headers, list)
    return {name: value.decode() if isinstance(value, bytes) else str(value) for name, value in headers}


def test_the_example_with_confluent_kafka_prints_the_result(roles: Roles) -> None:
    (best, *_) = run(roles, sys.executable, "examples/kafka_plain.py", roles.bootstrap, "What a terrible day.")
    assert best["label"] == "NEGATIVE"


@pytest.mark.skipif(shutil.which("kcat") is None, reason="there is no kcat: apt-get install kcat, brew install kcat")
def test_the_example_with_kcat_prints_the_result(roles: Roles) -> None:
    (best, *_) = run(roles, "examples/kafka_kcat.sh", roles.bootstrap, "examples/samples/palace.jpg")
    samples = json.loads((ROOT / "examples" / "samples" / "images.json").read_text())
    assert [best["label"]] == [sample["expected_top1"] for sample in samples if sample["file"] == "palace.jpg"]


def test_the_api_knows_a_job_that_came_as_a_record_and_one_sent_twice_is_one(roles: Roles, client_of: ClientOf) -> None:
    api = client_of(roles.start("api", "projector"))
    event, value = str(uuid.uuid4()), b"What a wonderful day."
    for _ in range(2):
        submit(roles, "text_classification", value, ce_source="/test", ce_id=event, forebay_metadata='{"order":7}')
    job = final(api, job_id(event=event, value=value))
    assert job["output"][0]["label"] == "POSITIVE"
    assert job["metadata"] == {"order": 7}
    assert job["model"] == "text_classification"


def test_a_record_is_a_job_of_its_topics_tenant(roles: Roles, client_of: ClientOf) -> None:
    service = roles.start("api", "projector")
    acme, default = client_of(service), client_of(service)
    for api, tenant in ((acme, "acme"), (default, "default")):
        own = {**roles.settings, "data_dir": str(service.log_file.parent)}
        key = output_of("keys", "create", "--tenant", tenant, settings=own).strip()
        api.http.headers["authorization"] = f"Bearer {key}"
    value = b"What a wonderful day."
    submit(roles, "text_classification", value, lane="low", ce_source="/test", ce_id="1")
    found = job_id(event="1", value=value, tenant="acme")
    assert final(acme, found)["output"][0]["label"] == "POSITIVE"
    assert default.http.get(f"/v1/jobs/{found}").json()["code"] == "unknown_job"


def final(api: Client, job_id: str) -> dict[str, Any]:
    """The job once it is final. A projector makes it known; until then its id means nothing to the API."""
    deadline = time.monotonic() + WITHIN_S
    while api.http.get(f"/v1/jobs/{job_id}").status_code == 404:
        assert time.monotonic() < deadline, "the API never heard of it"
        time.sleep(0.1)
    return api.final(job_id)


def job_id(*, event: str, value: bytes, tenant: str = "default") -> str:
    return foreign_job_id(
        ForeignRecord(
            tenant=tenant,
            channel=Channel("text_classification", "normal"),
            place="",
            logged_at=0.0,
            headers={"ce_source": "/test", "ce_id": event},
            value=value,
        )
    )


def test_a_malformed_record_goes_to_the_dead_letters_and_stops_nobody(roles: Roles) -> None:
    for n in range(50):  # on every partition
        submit(roles, "text_classification", f"malformed {n}".encode(), forebay_parameters="{")
        submit(roles, "text_classification", b"good", ce_source="/test", ce_id=f"good-{n}")
    wanted = {f"default/{job_id(event=f'good-{n}', value=b'good')}" for n in range(50)}

    def is_last(record: Message) -> bool:
        if headers_of(record)["ce_type"] == "io.forebay.job.succeeded.v1":
            wanted.discard((record.key() or b"").decode())
        return not wanted

    first_record(roles, f"{roles.prefix}.events", is_last)
    letters: set[bytes] = set()

    def is_last_letter(record: Message) -> bool:
        headers = headers_of(record)
        assert headers["forebay-error-code"] == "malformed_record"
        assert headers["forebay-error-topic"] == f"{roles.prefix}.requests.text_classification.normal"
        assert headers["forebay-parameters"] == "{"
        letters.add(record.value() or b"")
        return len(letters) == 50

    first_record(roles, f"{roles.prefix}.dlq", is_last_letter)


def test_an_input_that_the_model_does_not_take_fails_as_a_job_with_a_copy_among_the_dead_letters(roles: Roles) -> None:
    submit(roles, "image_classification", b"no photo", ce_source="/test", ce_id="1", content_type="image/jpeg")
    failed = first_record(roles, f"{roles.prefix}.events", lambda record: "forebay-error" in headers_of(record))
    assert headers_of(failed)["ce_type"] == "io.forebay.job.failed.v1"
    assert json.loads(headers_of(failed)["forebay-error"])["code"] == "bad_image"
    letter = first_record(roles, f"{roles.prefix}.dlq", lambda record: True)
    assert letter.value() == b"no photo"
    assert headers_of(letter)["forebay-error-code"] == "bad_image"
