"""A photo in, an ImageNet label out; a sentence in, a sentiment out: over HTTP and through the whole service."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forebay.testing.service import RunningService

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "examples" / "samples"
PHOTOS = json.loads((SAMPLES / "images.json").read_text())
SENTENCES = json.loads((SAMPLES / "sentences.json").read_text())
TOLERANCE = 1e-4


@pytest.mark.scenario
def test_every_sample_gets_its_label_alone_and_in_a_batch(
    start: Callable[..., RunningService], client_of: Callable[[RunningService], Any]
) -> None:
    service = start(models_dir=ROOT / "models", models="", trusted_models="")
    client = client_of(service)
    submissions: list[Callable[[], str]] = []
    expected: list[str] = []
    for photo in PHOTOS:
        data = (SAMPLES / photo["file"]).read_bytes()
        submissions.append(partial(client.submit_body, "image_classification", data, "image/jpeg"))
        submissions.append(partial(client.submit, "image_classification", base64.b64encode(data).decode()))
        expected += [photo["expected_top1"]] * 2
    for sentence in SENTENCES:
        submissions.append(partial(client.submit, "text_classification", sentence["text"]))
        expected.append(sentence["expected_label"])

    alone = [client.final(submit()) for submit in submissions]
    together = [client.final(job_id) for job_id in [submit() for submit in submissions * 3]]

    assert [job["output"][0]["label"] for job in alone] == expected
    assert all(job["metrics"]["batch_size"] == 1 for job in alone)
    assert [job["output"][0]["label"] for job in together] == expected * 3
    assert max(job["metrics"]["batch_size"] for job in together) > 1
    for single, batched in zip(alone * 3, together, strict=True):
        assert [one["label"] for one in single["output"]] == [one["label"] for one in batched["output"]]
        for one, other in zip(single["output"], batched["output"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=TOLERANCE)
