"""What goes into a model and what comes out: bytes with a media type, inline or by reference."""

from __future__ import annotations

from msgspec import Struct

JSON = "application/json"
TEXT = "text/plain"


class BlobRef(Struct, frozen=True, kw_only=True):
    """Where a large payload lies. `name` is `tenant/job/sha256`, made by a BlobStore and never by a client."""

    name: str
    size_bytes: int
    sha256: str


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of `data` and `blob` is set; the media type describes the bytes in either case."""

    media_type: str
    data: bytes | None = None
    blob: BlobRef | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data or b"") if self.blob is None else self.blob.size_bytes
