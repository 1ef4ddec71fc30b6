"""A job in the hands of a worker."""

from __future__ import annotations

from collections.abc import Hashable

from msgspec import Struct

from forebay.core.event import JobRequest
from forebay.core.lanes import Lane
from forebay.core.message import ReceivedMessage


class JobInHand(Struct, frozen=True, kw_only=True):
    """A received job. `attempt` is the number that its next hand-over to a runner will have."""

    lane: Lane
    received: ReceivedMessage
    request: JobRequest
    attempt: int

    @property
    def receipt(self) -> tuple[Lane, Hashable]:
        """What of a worker's jobs this one alone has."""
        return self.lane, self.received.receipt

    @property
    def handle(self) -> tuple[Lane, ReceivedMessage]:
        return self.lane, self.received
