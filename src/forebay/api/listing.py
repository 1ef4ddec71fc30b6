"""What a list of jobs is asked for in its query string."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import msgspec

from forebay.api.problems import InvalidQuery
from forebay.api.queries import time, whole
from forebay.api.reading import LOOK_AT, LOOK_AT_METADATA
from forebay.core.job import JobStatus
from forebay.ports.store import JobQuery, Place

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
METADATA = "metadata."
FILTERS = ("model", "status", "created_after", "created_before", "cursor", "limit")
CURSOR_MAX_CHARS = 4096

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[float, str]).decode


def read_listing(tenant: str, query: Sequence[tuple[str, str]]) -> tuple[JobQuery, Mapping[str, str]]:
    """The query and the metadata asked for. Raises InvalidQuery; an unknown filter is refused too, since one that is
    ignored would mislead."""
    given = dict(query)
    metadata = {name.removeprefix(METADATA): text for name, text in given.items() if name.startswith(METADATA)}
    for name in given:
        if name not in FILTERS and not (name.startswith(METADATA) and name != METADATA):
            raise InvalidQuery(name, f"not known here; known: {', '.join(FILTERS)}, {METADATA}NAME")
    status = given.get("status")
    if status is not None and status not in set(JobStatus):
        raise InvalidQuery("status", f"one of {', '.join(JobStatus)}")
    asked = JobQuery(
        tenant=tenant,
        model=given.get("model"),
        status=status,
        created_after=time(given, "created_after"),
        created_before=time(given, "created_before"),
        after=read_cursor(given["cursor"]) if "cursor" in given else None,
        limit=whole(given, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
        look=LOOK_AT_METADATA if metadata else LOOK_AT,
    )
    return asked, metadata


def cursor_of(place: Place) -> str:
    """Opaque to callers; it names a place in their own list and nothing else, so it needs no signature."""
    return base64.urlsafe_b64encode(_encode(place)).decode().rstrip("=")


def read_cursor(cursor: str) -> Place:
    """The inverse. Raises InvalidQuery."""
    try:
        if len(cursor) > CURSOR_MAX_CHARS:
            raise ValueError(cursor)
        return _decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:  # binascii's and msgspec's errors are ValueErrors
        raise InvalidQuery("cursor", "none of ours; take `next_cursor` of an answer as it is") from error
