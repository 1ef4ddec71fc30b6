"""The two example models give the labels that MODELS.md promises, alone and in batches."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from tests.unit.tasks.conftest import SAMPLES, Served

from forebay.core.model import ModelSpec
from forebay.core.payload import Payload

PHOTOS = json.loads((SAMPLES / "images.json").read_text())
SENTENCES = json.loads((SAMPLES / "sentences.json").read_text())


def photo(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


@pytest.mark.parametrize("sample", PHOTOS, ids=[sample["file"] for sample in PHOTOS])
def test_a_photo_gets_the_expected_label(photos: Served, sample: dict[str, Any]) -> None:
    payload = photos.task.parse_body(photo(sample["file"]), "image/jpeg", photos.spec)
    (labels,) = photos.answer_payloads([payload])
    assert [len(labels), labels[0]["label"]] == [5, sample["expected_top1"]]
    assert labels[0]["score"] == pytest.approx(sample["score"], abs=1e-3)
    assert labels == sorted(labels, key=lambda entry: -entry["score"])


def test_photos_in_one_batch_answer_as_they_do_alone(photos: Served) -> None:
    payloads = [Payload(media_type="image/jpeg", data=photo(sample["file"])) for sample in PHOTOS]
    alone = [photos.answer_payloads([payload])[0] for payload in payloads]
    together = photos.answer_payloads(payloads)
    for one, other in zip(alone, together, strict=True):
        assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
        assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other], abs=1e-4)


@pytest.mark.parametrize("sample", SENTENCES, ids=[sample["text"] for sample in SENTENCES])
def test_a_sentence_gets_the_expected_label(sentences: Served, sample: dict[str, Any]) -> None:
    ((best,),) = sentences.answer([sample["text"]])
    assert best == {"label": sample["expected_label"], "score": pytest.approx(sample["score"], abs=2e-3)}


def test_sentences_in_one_batch_answer_as_they_do_alone(sentences: Served) -> None:
    texts = [sample["text"] for sample in SENTENCES] + ["", "word " * 60, "a much longer text " * 90]
    alone = [sentences.answer([text], {"top_k": 2})[0] for text in texts]
    together = sentences.answer(texts, {"top_k": 2})
    for one, other in zip(alone, together, strict=True):
        assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
        assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other], abs=1e-4)


def test_the_ways_of_sending_a_photo_are_one(photos: Served) -> None:
    raw = photos.task.parse_body(photo("cat.jpg"), "image/jpeg; charset=binary", photos.spec)
    text = base64.b64encode(photo("cat.jpg")).decode()
    assert photos.task.parse_input(text, photos.spec) == raw
    assert photos.task.parse_input(f"data:image/jpeg;base64,{text}", photos.spec) == raw


@pytest.mark.parametrize("model", ["photos", "sentences"])
def test_the_examples_in_the_schemas_work(model: str, request: pytest.FixtureRequest) -> None:
    served: Served = request.getfixturevalue(model)
    for example in served.task.input_schema(served.spec)["examples"]:
        for parameters in served.task.parameters_schema(served.spec)["examples"]:
            ((first, *_),) = served.answer([example], parameters)
            assert first["label"] in {"Egyptian cat", "POSITIVE"}


@pytest.mark.parametrize("model", ["photos", "sentences"])
def test_a_spec_that_was_sent_to_a_runner_serves_as_before(model: str, request: pytest.FixtureRequest) -> None:
    served: Served = request.getfixturevalue(model)
    received = msgspec.msgpack.decode(msgspec.msgpack.encode(served.spec), type=ModelSpec)
    assert received == served.spec
    example = served.task.input_schema(served.spec)["examples"][0]
    assert Served(received).answer([example]) == served.answer([example])
