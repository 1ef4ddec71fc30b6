"""The promises of `ports.blobs`, as tests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from hashlib import sha256

import pytest

from forebay.core.errors import BlobDamaged, InvalidRequest
from forebay.core.payload import BlobRef
from forebay.ports.blobs import BlobStore

JOB = "0193a5b0-0000-7000-8000-000000000001-0123456789abcdef"


class BlobsPlace(ABC):
    """Where blobs lie, and how to damage one behind the store's back."""

    @abstractmethod
    async def open(self) -> BlobStore: ...

    @abstractmethod
    async def damage(self, ref: BlobRef, data: bytes | None) -> None:
        """Put `data` in place of the blob's bytes; None removes them."""


@pytest.mark.anyio
class BlobsContract:
    @pytest.fixture
    def place(self) -> BlobsPlace:
        raise NotImplementedError("say where the blobs lie")

    @pytest.fixture
    async def blobs(self, place: BlobsPlace) -> BlobStore:
        return await place.open()

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 8000], ids=["empty", "one byte", "2 MB"])
    async def test_the_bytes_come_back(self, blobs: BlobStore, data: bytes) -> None:
        ref = await blobs.put("default", JOB, data)
        assert await blobs.get(ref) == data

    async def test_a_reference_names_tenant_job_and_digest(self, blobs: BlobStore) -> None:
        digest = sha256(b"hello").hexdigest()
        ref = await blobs.put("default", JOB, b"hello")
        assert ref == BlobRef(name=f"default/{JOB}/{digest}", size_bytes=5, sha256=digest)

    @pytest.mark.parametrize("job", ["", "a/b", "..", "a b", "é"])
    async def test_what_makes_no_name_is_refused(self, blobs: BlobStore, job: str) -> None:
        with pytest.raises(InvalidRequest):
            await blobs.put("default", job, b"hello")

    async def test_putting_again_is_harmless(self, blobs: BlobStore) -> None:
        refs = [await blobs.put("default", JOB, b"hello") for _ in range(3)]
        assert refs == refs[:1] * 3
        assert await blobs.get(refs[0]) == b"hello"

    async def test_all_blobs_of_a_job_are_deleted_and_none_of_another(self, blobs: BlobStore) -> None:
        mine = [await blobs.put("default", JOB, data) for data in (b"input", b"output")]
        others = [await blobs.put("default", f"{JOB}0", b"input"), await blobs.put("other", JOB, b"input")]
        for _ in range(2):
            await blobs.delete_job("default", JOB)
        for ref in mine:
            with pytest.raises(BlobDamaged, match="missing"):
                await blobs.get(ref)
        assert [await blobs.get(ref) for ref in others] == [b"input", b"input"]
        await blobs.put("default", JOB, b"late")
        await blobs.delete_job("default", "no/name/of/a/blob")

    async def test_many_at_once_do_not_disturb_each_other(self, blobs: BlobStore) -> None:
        """The same blob several times, and others of the same job and of another."""
        wanted = [(job, bytes([n % 5]) * 50_000) for n in range(30) for job in (JOB, JOB[:-1] + "0")]
        refs = await asyncio.gather(*(blobs.put("default", job, data) for job, data in wanted))
        assert await asyncio.gather(*(blobs.get(ref) for ref in refs)) == [data for _, data in wanted]

    async def test_it_is_there_when_opened_again(self, place: BlobsPlace) -> None:
        ref = await (await place.open()).put("default", JOB, b"hello")
        assert await (await place.open()).get(ref) == b"hello"

    @pytest.mark.parametrize("damage", [b"hellO", b"hell", b"hello!", b"", None])
    async def test_damage_is_found_when_it_is_read(
        self, place: BlobsPlace, blobs: BlobStore, damage: bytes | None
    ) -> None:
        ref = await blobs.put("default", JOB, b"hello")
        await place.damage(ref, damage)
        with pytest.raises(BlobDamaged, match=JOB):
            await blobs.get(ref)

    async def test_putting_beside_deleting_succeeds(self, blobs: BlobStore) -> None:
        """An attempt may end while its job is deleted; whether its blob is there then nobody asks."""
        for n in range(20):
            ref, _ = await asyncio.gather(
                blobs.put("default", JOB, bytes([n])), blobs.delete_job("default", JOB), return_exceptions=True
            )
            assert isinstance(ref, BlobRef)
            assert await blobs.put("default", JOB, bytes([n])) == ref
            assert await blobs.get(ref) == bytes([n])
