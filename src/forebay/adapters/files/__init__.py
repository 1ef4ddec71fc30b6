"""Blobs as files in a folder."""

from __future__ import annotations

from forebay.adapters.files.blobs import FilesBlobs

__all__ = ["FilesBlobs"]
