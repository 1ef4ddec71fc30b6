"""The whole service with its large payloads in a real server of S3, known from the usual variables."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from tests.s3.client import raw_objects
from tests.scenario.conftest import Client, Start

from dev.s3.server import BUCKET, S3Server
from forebay.testing.service import RunningService

LARGE = "x" * 2_000_000

pytestmark = pytest.mark.scenario

ClientOf = Callable[[RunningService], Client]


@pytest.fixture
def place(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where blobs go; the environment says how."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("AWS_REGION", s3.options["region"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.options["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.options["secret_access_key"])
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def test_a_large_input_and_its_output_travel_by_the_object_store(
    start: Start, client_of: ClientOf, s3: S3Server, place: str
) -> None:
    api = client_of(start("echo", blobs=place))
    job_id = api.submit("echo", {"text": LARGE})
    assert api.final(job_id)["output"] == {"text": LARGE}
    names = [found["path"] for batch in raw_objects(place, s3.options).list() for found in batch]
    assert {name.rpartition("/")[0] for name in names} == {f"default/{job_id}"}


def test_while_it_is_away_large_inputs_get_503_and_small_ones_go_on(
    start: Start, client_of: ClientOf, s3: S3Server, place: str
) -> None:
    api = client_of(start("echo", blobs=place))
    s3.kill()
    refused = api.http.post("/v1/jobs", json={"model": "echo", "input": LARGE})
    assert refused.status_code == 503, refused.text
    assert int(refused.headers["retry-after"]) >= 1
    assert BUCKET not in refused.text, "callers are told nothing of the machines"
    assert api.final(api.submit("echo", "small"))["output"] == "small"
    s3.start()
    assert api.final(api.submit("echo", LARGE))["output"] == LARGE


def test_a_result_that_was_damaged_is_never_given_out(
    start: Start, client_of: ClientOf, s3: S3Server, place: str
) -> None:
    api = client_of(start("echo", blobs=place))
    job_id = api.submit("echo", LARGE)
    assert api.final(job_id)["output"] == LARGE
    objects = raw_objects(place, s3.options)
    for name in [found["path"] for batch in objects.list() for found in batch]:
        objects.put(name, LARGE.replace("x", "y").encode())
    answer = api.http.get(f"/v1/jobs/{job_id}/result")
    assert answer.status_code == 500, answer.text
    assert answer.json()["code"] == "blob_damaged"
