"""What becomes of records that nobody can read, where their dead letters cannot be written either."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
import structlog
from tests.unit.adapters.kafka.test_hand import NAMED, unreadable

from forebay.adapters.kafka import member as module
from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.entries import Entry
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.member import Member
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.tracker import Tracker
from forebay.core.errors import InvalidRequest, PayloadTooLarge, Unavailable
from forebay.core.event import JobError

pytestmark = pytest.mark.anyio


class Letters:
    """Fails with each of these, and writes then."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.written = asyncio.Event()

    async def write(self, entry: Entry, error: JobError, attempt: int) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.written.set()


@pytest.mark.parametrize(
    ("failure", "event"),
    [
        (Unavailable("away"), "queue.dead_letter_waits"),
        (PayloadTooLarge("the topic takes nothing", limit_bytes=1), "queue.dead_letter_failed"),
        (ZeroDivisionError(), "queue.dead_letter_failed"),
    ],
)
async def test_what_cannot_become_a_dead_letter_is_told_and_kept_until_it_can(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, event: str
) -> None:
    monkeypatch.setattr(module, "BURY_AGAIN_S", 0.0)
    letters = Letters(failure, failure)
    member = Member(
        KafkaLink(bootstrap="127.0.0.1:1"), ConsumerPlan(), "group", ["topic"], cast("DeadLetters", letters)
    )
    member.hand.assigned(NAMED, Tracker(0))
    [entry] = member.hand.feed([unreadable(NAMED, 0)])
    with structlog.testing.capture_logs() as logs:
        member.bury(entry, InvalidRequest("nobody can read it"))
        assert member.hand.holds(entry.receipt)
        await letters.written.wait()
        await asyncio.sleep(0)
    assert not member.hand.holds(entry.receipt)
    assert [line["event"] for line in logs] == ["queue.malformed", event, event]
    await member.close()
