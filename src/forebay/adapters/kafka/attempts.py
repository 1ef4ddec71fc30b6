"""What a record that waits out a delay carries with it: its attempts, its channel, when it is due.

A partition's marks stay behind when a message leaves it for a retry topic, so the counts travel as headers. They are
ours alone: a worker never sees them.
"""

from __future__ import annotations

from collections.abc import Mapping

from forebay.adapters.kafka.names import RETRY_TIERS_S
from forebay.adapters.kafka.tracker import Mark
from forebay.core.errors import InvalidRequest
from forebay.core.message import Channel, Message

ATTEMPT = "forebay-attempt"
INTERRUPTIONS = "forebay-interruptions"
DUE = "forebay-due"
CHANNEL = "forebay-channel"
OURS = frozenset({ATTEMPT, INTERRUPTIONS, DUE, CHANNEL})

COUNT_MAX = 999_999


def known_attempts(headers: Mapping[str, str]) -> Mark:
    """What the headers say; none for a message that never left its partition, or whose headers are no counts."""
    if ATTEMPT not in headers:
        return Mark()
    return Mark(_count(headers[ATTEMPT]), _count(headers.get(INTERRUPTIONS, "0")))


def attempt_headers(mark: Mark) -> dict[str, str]:
    return {ATTEMPT: str(mark.attempt), INTERRUPTIONS: str(mark.interruptions)}


def delay_headers(mark: Mark, channel: Channel, due_at: float) -> dict[str, str]:
    """`due_at` is seconds since the epoch."""
    return {**attempt_headers(mark), CHANNEL: f"{channel.model}/{channel.lane}", DUE: f"{due_at:.3f}"}


def due(headers: Mapping[str, str]) -> tuple[Channel, float]:
    """The inverse. Raises InvalidRequest."""
    model, _, lane = headers.get(CHANNEL, "").rpartition("/")
    try:
        due_at = float(headers.get(DUE, ""))
    except ValueError as exc:
        raise InvalidRequest(f"{DUE} is no time: {headers.get(DUE)!r}", code="malformed_header") from exc
    if not model or not lane or not due_at < float("inf"):
        raise InvalidRequest(f"{CHANNEL} is no <model>/<lane>: {headers.get(CHANNEL)!r}", code="malformed_header")
    return Channel(model, lane), due_at


def without_ours(message: Message) -> Message:
    """As it was first published."""
    if OURS.isdisjoint(message.headers):
        return message
    headers = {name: value for name, value in message.headers.items() if name not in OURS}
    return Message(tenant=message.tenant, job_id=message.job_id, headers=headers, value=message.value)


def tier_for(delay_s: float, tiers: Mapping[str, float] = RETRY_TIERS_S) -> tuple[str, float]:
    """Name and seconds of the shortest tier that is at least `delay_s`; of the longest for more, which then goes round
    again."""
    longest = max(tiers, key=lambda name: tiers[name])
    fitting = [name for name, tier_s in tiers.items() if tier_s >= delay_s]
    name = min(fitting, key=lambda name: tiers[name], default=longest)
    return name, tiers[name]


def _count(text: str) -> int:
    return min(int(text), COUNT_MAX) if text.isascii() and text.isdigit() else 0
