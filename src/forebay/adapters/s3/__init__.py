"""Blobs in an object store: S3 and what speaks like it, Google Cloud Storage, Azure. Needs the extra `s3`."""

from __future__ import annotations

from forebay.adapters.s3.blobs import S3Blobs

__all__ = ["S3Blobs"]
