"""Objects behind the back of the blob store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import S3Config  # exists for types only


def raw_objects(url: str, options: Mapping[str, str]) -> S3Store:
    """The objects of one bucket and prefix, to be written over or removed."""
    return S3Store.from_url(url, config=cast("S3Config", options), client_options={"allow_http": True})
