"""What travels on a queue: bytes with headers, addressed by tenant and job."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from msgspec import Struct


class Channel(Struct, frozen=True):
    """Where a message waits. Each (model, lane) is a queue of its own, so that no model or lane delays another."""

    model: str
    lane: str


JobKey = tuple[str, str]
"""Tenant and job id."""


class Message(Struct, frozen=True, kw_only=True):
    """One record. `headers` are CloudEvents binary-mode attributes plus ours; `core/wire.py` writes and reads them."""

    tenant: str
    job_id: str
    headers: Mapping[str, str]
    value: bytes


class ReceivedMessage(Struct, frozen=True, kw_only=True):
    """A message in the hands of one consumer.

    `receipt` means something only to the consumer that gave it. `attempt` is how many attempts were begun before, by
    anybody, deaths included: 0 for a message that never ran. `interruptions` is of how many of them nobody has said
    how they ended (no ack, no nack): whoever ran it died or was cut off. `logged_at` is when the log took it, by the
    log's own clock; after a delay it may be later.
    """

    message: Message
    receipt: Hashable
    attempt: int
    interruptions: int = 0
    logged_at: float = 0.0
