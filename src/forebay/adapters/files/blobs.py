"""Blobs as files, `<folder>/<tenant>/<job>/<sha256>`. A name that exists holds the whole blob."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from hashlib import sha256
from pathlib import Path

from forebay.core import crash
from forebay.core.errors import BlobDamaged, Unavailable
from forebay.core.payload import BlobRef, blob_ref, check_blob_name, may_have_blobs
from forebay.ports.blobs import BlobStore

TRIES = 5
"""Who deletes the job's blobs may remove the folder between its making and its use."""


class FilesBlobs(BlobStore):
    """With `fsync` a blob survives a power cut once `put` has returned, without it only the death of processes.

    A crash may leave a file whose name begins with a dot; it is never read and goes with its folder.
    """

    def __init__(self, folder: Path, *, fsync: bool = True) -> None:
        self._folder = folder
        self._fsync = fsync

    async def put(self, tenant: str, job_id: str, data: bytes) -> BlobRef:
        return await asyncio.to_thread(self._put, tenant, job_id, data)

    async def get(self, ref: BlobRef) -> bytes:
        return await asyncio.to_thread(self._get, ref)

    async def delete_job(self, tenant: str, job_id: str) -> None:
        if may_have_blobs(tenant, job_id):
            await asyncio.to_thread(self._delete_folder, self._folder / tenant / job_id)

    def _put(self, tenant: str, job_id: str, data: bytes) -> BlobRef:
        ref = blob_ref(tenant, job_id, data)
        path = self._path(ref)
        try:
            self._write(path, data)
        except OSError as exc:
            raise self._unavailable("written", ref, exc) from exc
        return ref

    def _write(self, path: Path, data: bytes) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                self._make(path.parent)
                return self._write_once(path, data)
            except FileNotFoundError:
                if not tries_left:
                    raise

    def _write_once(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        crash.reach("files.before_write")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                if self._fsync:
                    os.fsync(file.fileno())
            crash.reach("files.before_rename")
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        crash.reach("files.after_rename")
        self._sync_folder(path.parent)

    def _make(self, folder: Path) -> None:
        """Make `folder` and those above it. A new folder is durable only with the one that names it."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(exist_ok=True)
        self._sync_folder(folder.parent)

    def _sync_folder(self, folder: Path) -> None:
        if not self._fsync:
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _get(self, ref: BlobRef) -> bytes:
        crash.reach("files.before_read")
        try:
            data = self._path(ref).read_bytes()
        except FileNotFoundError as exc:
            raise BlobDamaged(f"the blob {ref.name} is missing") from exc
        except OSError as exc:
            raise self._unavailable("read", ref, exc) from exc
        crash.reach("files.after_read")
        if sha256(data).hexdigest() != ref.sha256:
            raise BlobDamaged(
                f"the blob {ref.name} does not match its digest ({len(data)} bytes, {ref.size_bytes} expected)"
            )
        return data

    def _delete_folder(self, folder: Path) -> None:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # it had none, or another scheduler was first
            return
        except OSError as exc:
            raise Unavailable(f"the blobs in {folder} cannot be deleted: {exc.strerror}", retry_after_s=5.0) from exc

    def _path(self, ref: BlobRef) -> Path:
        """Raises InvalidRequest for a name that is not tenant/job/sha256, such as one that leads out of the folder."""
        check_blob_name(ref)
        return self._folder.joinpath(*ref.name.split("/"))

    def _unavailable(self, what: str, ref: BlobRef, error: OSError) -> Unavailable:
        usage = shutil.disk_usage(self._folder if self._folder.exists() else self._folder.parent)
        return Unavailable(
            f"the blob {ref.name} ({ref.size_bytes} bytes) cannot be {what}: {error.strerror} "
            f"({usage.free} bytes free of {usage.total})",
            retry_after_s=5.0,
        )
