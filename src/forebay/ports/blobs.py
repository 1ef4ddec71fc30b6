"""Large payloads by reference (the claim-check pattern)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from forebay.core.payload import BlobRef


class BlobStore(ABC):
    """Blobs are named tenant/job/sha256 and written once; a name never comes from a client."""

    @abstractmethod
    async def put(self, tenant: str, job_id: str, data: bytes) -> BlobRef:
        """Store `data`; when this returns it survives what the adapter's durability promises. Repeating it with the
        same arguments is harmless. Raises Unavailable when the place cannot be written (full, away), and InvalidRequest
        where the ids make no name (`blob_ref`)."""

    @abstractmethod
    async def get(self, ref: BlobRef) -> bytes:
        """The bytes, checked against the digest. Raises BlobDamaged when they are missing or differ."""

    @abstractmethod
    async def delete_job(self, tenant: str, job_id: str) -> None:
        """Remove all blobs of a job. Repeating it is harmless, and so is a job that has none. Raises Unavailable."""
