"""What goes into a model and what comes out: bytes with a media type, inline or by reference."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Annotated

from msgspec import Meta, Struct

from forebay.core.errors import InvalidRequest

JSON = "application/json"
TEXT = "text/plain"

_PART = re.compile(r"[A-Za-z0-9_@+=:-][A-Za-z0-9._@+=:-]{0,199}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobRef(Struct, frozen=True, kw_only=True):
    """Where a large payload lies. `name` is `tenant/job/sha256`, made by a BlobStore and never by a client."""

    name: str
    size_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    sha256: str


def blob_ref(tenant: str, job_id: str, data: bytes) -> BlobRef:
    """The reference to `data` as a blob of this job. Raises InvalidRequest where the two make no name."""
    digest = sha256(data).hexdigest()
    ref = BlobRef(name=f"{tenant}/{job_id}/{digest}", size_bytes=len(data), sha256=digest)
    check_blob_name(ref)
    return ref


def may_have_blobs(tenant: str, job_id: str) -> bool:
    """Whether the two make a name of a blob at all."""
    return bool(_PART.fullmatch(tenant) and _PART.fullmatch(job_id))


def check_blob_name(ref: BlobRef) -> None:
    """Raises InvalidRequest for a name that is not tenant/job/sha256, such as one that leads out of the store.

    Names are ours, yet a reference may have come in with a record that somebody else wrote.
    """
    parts = ref.name.split("/")
    fits = len(parts) == 3 and all(_PART.fullmatch(part) for part in parts[:2]) and _DIGEST.fullmatch(parts[2])
    if not fits or parts[2] != ref.sha256:
        raise InvalidRequest(f"{ref.name!r} is no blob name")


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of `data` and `blob` is set; the media type describes the bytes in either case."""

    media_type: str
    data: bytes | None = None
    blob: BlobRef | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data or b"") if self.blob is None else self.blob.size_bytes
