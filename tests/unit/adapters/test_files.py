"""What files add to the contract of blobs: names, leftovers, full disks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from forebay.adapters.files import FilesBlobs
from forebay.core import crash
from forebay.core.errors import InvalidRequest, Unavailable
from forebay.core.payload import BlobRef

DIGEST = "ab" * 32


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def folders(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir())


@pytest.mark.parametrize(
    "name",
    [
        f"../job/{DIGEST}",
        f"tenant/../{DIGEST}",
        f"/etc/{DIGEST}",
        f"tenant//{DIGEST}",
        f"./job/{DIGEST}",
        f"tenant/.hidden/{DIGEST}",
        f"tenant/job/more/{DIGEST}",
        f"tenant/job/../{DIGEST}",
        f"ten\0ant/job/{DIGEST}",
        f"ten\nant/job/{DIGEST}",
        f"tenant\n/job/{DIGEST}",
        f"tenant/job/{DIGEST}\n",
        f"tenant/job/{DIGEST.upper()}",
        "tenant/job/passwd",
        f"tenant/{DIGEST}",
        f"tenant/{'j' * 300}/{DIGEST}",
        "",
    ],
)
async def test_a_name_that_is_not_ours_is_refused(tmp_path: Path, name: str) -> None:
    blobs = FilesBlobs(tmp_path / "blobs")
    ref = BlobRef(name=name, size_bytes=1, sha256=DIGEST)
    with pytest.raises(InvalidRequest, match="no blob name"):
        await blobs.get(ref)


async def test_a_name_with_another_digest_than_the_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        await FilesBlobs(tmp_path).get(BlobRef(name=f"t/j/{DIGEST}", size_bytes=1, sha256="cd" * 32))


@pytest.mark.parametrize(("tenant", "job"), [("..", "job"), ("a/b", "job"), ("tenant", ".."), ("", "job"), ("t", "")])
async def test_nothing_is_written_under_a_wrong_name(tmp_path: Path, tenant: str, job: str) -> None:
    with pytest.raises(InvalidRequest):
        await FilesBlobs(tmp_path).put(tenant, job, b"x")
    assert files(tmp_path) == []


async def test_only_finished_blobs_lie_in_the_folder(tmp_path: Path) -> None:
    blobs = FilesBlobs(tmp_path)
    refs = [await blobs.put("tenant", "job", data) for data in (b"a", b"b")]
    assert files(tmp_path) == sorted(ref.name for ref in refs)
    await blobs.delete_job("tenant", "job")
    assert files(tmp_path) == []
    assert folders(tmp_path) == ["tenant"]


async def test_a_disk_that_fails_is_unavailable_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = FilesBlobs(tmp_path)
    await blobs.put("tenant", "job", b"before")
    before = files(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match=r"5 bytes.*No space left.*bytes free of"):
        await blobs.put("tenant", "job", b"after")
    assert files(tmp_path) == before


async def test_a_test_can_kill_before_and_after_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    monkeypatch.setattr(crash, "_armed", reached.append)
    blobs = FilesBlobs(tmp_path)
    await blobs.get(await blobs.put("tenant", "job", b"data"))
    assert reached == [
        "files.before_write",
        "files.before_rename",
        "files.after_rename",
        "files.before_read",
        "files.after_read",
    ]


@pytest.mark.parametrize(("fsync", "expected"), [(True, [5, 7]), (False, [0, 0])])
async def test_a_blob_and_the_folders_that_name_it_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool, expected: list[int]
) -> None:
    """The file, its folder, and each folder in which one was made: job in tenant, tenant in root, root in the folder
    above it; the second blob adds only itself and its folder."""
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    blobs = FilesBlobs(tmp_path / "blobs", fsync=fsync)
    await blobs.put("tenant", "job", b"first")
    assert len(flushed) == expected[0]
    await blobs.put("tenant", "job", b"second")
    assert len(flushed) == expected[1]
