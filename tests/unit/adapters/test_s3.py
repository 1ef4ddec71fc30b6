"""What the blob store in S3 decides without asking its server: names, addresses, options."""

from __future__ import annotations

import pytest

from forebay.adapters.s3 import S3Blobs
from forebay.core.errors import InvalidRequest, Misconfigured
from forebay.core.payload import BlobRef

DIGEST = "ab" * 32
NOBODY = {"endpoint": "http://127.0.0.1:1", "access_key_id": "id", "secret_access_key": "key"}


@pytest.fixture
def blobs() -> S3Blobs:
    """Whoever asks the server gets Unavailable."""
    return S3Blobs("s3://bucket/prefix", options=NOBODY)


@pytest.mark.parametrize(
    "name",
    [
        f"../job/{DIGEST}",
        f"tenant/../{DIGEST}",
        f"/job/{DIGEST}",
        f"tenant//{DIGEST}",
        f"tenant/job/more/{DIGEST}",
        f"tenant/job?x=/{DIGEST}",
        f"tenant/job/{DIGEST.upper()}",
        f"tenant/{DIGEST}",
        "",
    ],
)
async def test_a_name_that_is_not_ours_is_refused(blobs: S3Blobs, name: str) -> None:
    ref = BlobRef(name=name, size_bytes=1, sha256=DIGEST)
    with pytest.raises(InvalidRequest, match="no blob name"):
        await blobs.get(ref)


@pytest.mark.parametrize(("tenant", "job"), [("..", "job"), ("a/b", "job"), ("tenant", ".."), ("", "job"), ("t", "")])
async def test_nothing_is_written_under_a_wrong_name(blobs: S3Blobs, tenant: str, job: str) -> None:
    with pytest.raises(InvalidRequest):
        await blobs.put(tenant, job, b"x")


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/b", "gs://bucket/prefix", "az://container/prefix"])
def test_the_three_clouds_are_known_by_their_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    S3Blobs(url)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("bucket/prefix", {}),
        ("file:///tmp", {}),
        ("memory:///", {}),
        ("http://localhost/bucket", {}),
        ("s3://", {}),
        ("s3://bucket", {"acces_key": "x"}),
        ("s3://bucket", {"virtual_hosted_style_request": "perhaps"}),
        ("gs://bucket", {"access_key_id": "of another cloud"}),
    ],
)
def test_what_cannot_be_used_is_told_to_the_operator(url: str, options: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="blobs"):
        S3Blobs(url, options=options)
