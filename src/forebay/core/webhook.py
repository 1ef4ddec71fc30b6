"""Whom a job tells of itself, as its request says it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

URL_MOST_CHARS = 2048
TARGETS_MOST = 101
"""Every endpoint that a tenant may have, and the job's own address."""


class WebhookEvent(StrEnum):
    """What of a job is told. `completed` is any final state; of a batch that all of its jobs are final."""

    STARTED = "started"
    OUTPUT = "output"
    COMPLETED = "completed"


DEFAULT_EVENTS = (WebhookEvent.COMPLETED,)


class WebhookTarget(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Either `endpoint`, the id of one of the tenant's, whose address is looked up when it is called, or a `url` that
    the job itself named. Which they are stands in the log with the job: so a rebuild tells nobody else."""

    endpoint: Annotated[str, Meta(max_length=64)] = ""
    url: Annotated[str, Meta(max_length=URL_MOST_CHARS)] = ""
    events: tuple[WebhookEvent, ...] = DEFAULT_EVENTS


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[WebhookTarget, ...]).decode


def encode_targets(targets: Sequence[WebhookTarget]) -> bytes:
    return _encode(targets)


def decode_targets(text: str | bytes) -> tuple[WebhookTarget, ...]:
    """Raises ValueError, and what msgspec does, for what no request of ours says."""
    targets = _decode(text)
    if len(targets) > TARGETS_MOST:
        raise ValueError(f"a job tells {TARGETS_MOST} receivers at most")
    for target in targets:
        if bool(target.endpoint) == bool(target.url):
            raise ValueError("a webhook goes to an endpoint or to a url")
    return targets


@lru_cache(1024)
def host_and_port(url: str) -> str:
    """Roughly: whoever calls it reads the address with care."""
    return re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0].lower()
