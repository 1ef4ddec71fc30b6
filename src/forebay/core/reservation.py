"""A key that names one job, however many copies of its submission arrive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from forebay.core.event import JobRequest
from forebay.core.fact import Fact
from forebay.core.job_batch import BatchEvent
from forebay.core.payload import Payload
from forebay.core.wire import canonical_json

KEEP_S = 86_400.0
"""So long a key names its job; then it is as good as new."""


class Reservation(Struct, frozen=True, kw_only=True):
    """`key` is a digest of what the caller gave, unique within the tenant; `fingerprint` one of what was asked for.
    `published`: the job is durable. Until then its id and `accepted_at` are those under which whoever holds the lease
    publishes it, so that another who takes over publishes the same bytes.
    """

    tenant: str
    key: str
    job_id: str
    fingerprint: str
    accepted_at: float
    published: bool = False


def reservation_of(fact: JobRequest | BatchEvent) -> Reservation:
    """That of a job in the log which was submitted with a key, or of a part of a batch, whose id it then names."""
    return Reservation(
        tenant=fact.tenant,
        key=fact.key,
        job_id=fact.job_id if isinstance(fact, JobRequest) else fact.batch_id,
        fingerprint=fact.fingerprint,
        accepted_at=fact.accepted_at if isinstance(fact, JobRequest) else fact.at,
        published=True,
    )


def newest_of(facts: Iterable[Fact]) -> list[Reservation]:
    """The reservations in a part of the log: of each key the youngest, in the order of their keys."""
    found: dict[tuple[str, str], Reservation] = {}
    for fact in facts:
        if isinstance(fact, (JobRequest, BatchEvent)) and fact.key:
            one, new = found.get((fact.tenant, fact.key)), reservation_of(fact)
            if one is None or one.accepted_at <= new.accepted_at:
                found[fact.tenant, fact.key] = new
    return [found[key] for key in sorted(found)]


def digest_of_key(kind: str, key: str) -> str:
    """The same key of another kind is another key."""
    return hashlib.sha256(f"{kind}\0{key}".encode()).hexdigest()


def fingerprint_of(asked: Mapping[str, Any], payload: Payload) -> str:
    """Of all that makes the job: what is asked for, and the input as it would travel, before it goes to a blob. However
    the request was written."""
    digest = hashlib.sha256(canonical_json([asked, payload.media_type]))
    digest.update(payload.data or b"")
    return digest.hexdigest()
