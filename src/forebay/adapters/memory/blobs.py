"""Blobs in a dictionary."""

from __future__ import annotations

from hashlib import sha256

from forebay.core.errors import BlobDamaged
from forebay.core.payload import BlobRef, blob_ref
from forebay.ports.blobs import BlobStore


class MemoryBlobs(BlobStore):
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    async def put(self, tenant: str, job_id: str, data: bytes) -> BlobRef:
        ref = blob_ref(tenant, job_id, data)
        self.blobs[ref.name] = bytes(data)
        return ref

    async def get(self, ref: BlobRef) -> bytes:
        data = self.blobs.get(ref.name)
        if data is None:
            raise BlobDamaged(f"the blob {ref.name} is missing")
        if sha256(data).hexdigest() != ref.sha256:
            raise BlobDamaged(f"the blob {ref.name} has {len(data)} bytes that do not match its digest")
        return data

    async def delete_job(self, tenant: str, job_id: str) -> None:
        for name in [name for name in self.blobs if name.startswith(f"{tenant}/{job_id}/")]:
            del self.blobs[name]
