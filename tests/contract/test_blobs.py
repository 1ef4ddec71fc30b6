"""Every blob store keeps the same promises."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from tests.s3.client import raw_objects

from dev.s3.server import BUCKET, S3Server
from forebay.adapters.files import FilesBlobs
from forebay.adapters.memory import MemoryBlobs
from forebay.adapters.s3 import S3Blobs
from forebay.core.payload import BlobRef
from forebay.ports.blobs import BlobStore
from forebay.testing.blobs_contract import BlobsContract, BlobsPlace


class MemoryPlace(BlobsPlace):
    def __init__(self) -> None:
        self._blobs = MemoryBlobs()

    async def open(self) -> BlobStore:
        return self._blobs

    async def damage(self, ref: BlobRef, data: bytes | None) -> None:
        if data is None:
            del self._blobs.blobs[ref.name]
        else:
            self._blobs.blobs[ref.name] = data


class FilesPlace(BlobsPlace):
    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self._folder = folder
        self._fsync = fsync

    async def open(self) -> BlobStore:
        return FilesBlobs(self._folder, fsync=self._fsync)

    async def damage(self, ref: BlobRef, data: bytes | None) -> None:
        path = self._folder / ref.name
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)


class TestMemoryBlobs(BlobsContract):
    @pytest.fixture
    def place(self) -> BlobsPlace:
        return MemoryPlace()


class TestFilesBlobs(BlobsContract):
    @pytest.fixture(params=[True, False], ids=["fsync", "no fsync"])
    def place(self, tmp_path: Path, request: pytest.FixtureRequest) -> BlobsPlace:
        return FilesPlace(tmp_path / "blobs", fsync=request.param)


class S3Place(BlobsPlace):
    def __init__(self, server: S3Server, **options: str) -> None:
        self._url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        self._options = {**server.options, **options}

    async def open(self) -> BlobStore:
        return S3Blobs(self._url, options=self._options)

    async def damage(self, ref: BlobRef, data: bytes | None) -> None:
        objects = raw_objects(self._url, self._options)
        if data is None:
            await objects.delete_async(ref.name)
        else:
            await objects.put_async(ref.name, data)


class TestS3Blobs(BlobsContract):
    @pytest.fixture(params=["etag", "disabled"], ids=["conditional put", "no conditional put"])
    def place(self, s3: S3Server, request: pytest.FixtureRequest) -> BlobsPlace:
        return S3Place(s3, conditional_put=request.param)
