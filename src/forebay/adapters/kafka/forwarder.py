"""Brings delayed messages back to their channels.

A tier has one delay, so its partitions are in the order in which their messages are due, and only the first few of each
are looked at. Several forwarders share the partitions. A message is done when it is in its channel again: a death in
between brings it there twice, and the job runs twice at worst.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping

import structlog

from forebay.adapters.kafka.attempts import attempt_headers, delay_headers, due, tier_for, without_ours
from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.hand import Entry
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.member import Member
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.reader import ConsumerPlan
from forebay.adapters.kafka.records import Record, to_record
from forebay.core.errors import InvalidRequest, Unavailable
from forebay.core.event import JobError

log = structlog.get_logger(__name__)

LOOK_AHEAD = 100
"""Messages of one partition that wait here: enough to forward thousands a second, little enough for any payload."""

LOOK_EVERY_S = 5.0
JITTER = 0.1
"""Of the tier's delay, added by chance, so that what failed together does not come back together."""

SLACK_S = 0.001


class Forwarder:
    """`tiers` are seconds by the last part of a retry topic's name. `clock` is wall time, `random` in [0, 1)."""

    def __init__(
        self,
        link: KafkaLink,
        plan: ConsumerPlan,
        publisher: Publisher,
        dead_letters: DeadLetters,
        *,
        tiers: Mapping[str, float],
        publish_wait_s: float,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._names = link.names
        self._tiers = tiers
        self._tier_s = {self._names.retry_prefix + name: tier_s for name, tier_s in tiers.items()}
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._publish_wait_s = publish_wait_s
        self._clock = clock
        self._random = random
        self._member = Member(
            link,
            plan,
            self._names.scheduler_group,
            list(self._tier_s),
            dead_letters,
            most_of_a_part=LOOK_AHEAD,
        )
        # When each is to leave, on the loop's clock. The number keeps entries from being compared.
        self._leaving: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                until_next_s = self._leaving[0][0] - loop.time() if self._leaving else LOOK_EVERY_S
                taken = await self._member.receive(LOOK_AHEAD, max(0.0, min(until_next_s, LOOK_EVERY_S)))
                for entry, _ in taken:
                    self._schedule(entry, loop.time())
                await self._forward(self._due(loop.time()))
        finally:
            await self._member.close()

    def _schedule(self, entry: Entry, now: float) -> None:
        tier_s = self._tier_s[entry.place[0]]
        try:
            wait_s = due(_headers(entry))[1] - self._clock()
        except InvalidRequest:
            wait_s = 0.0  # to be a dead letter
        wait_s = min(max(wait_s, 0.0), tier_s) + JITTER * tier_s * self._random()
        heapq.heappush(self._leaving, (now + wait_s, next(self._numbers), entry))

    def _due(self, now: float) -> list[Entry]:
        entries = []
        while self._leaving and self._leaving[0][0] <= now:
            entries.append(heapq.heappop(self._leaving)[2])
        return entries

    async def _forward(self, entries: list[Entry]) -> None:
        """Until they are there: what waits behind them needs the same brokers."""
        while entries:
            # Those that were taken away are another forwarder's.
            kept = [entry for entry, _ in self._member.hand.keep(entry.receipt for entry in entries)]
            try:
                records = [record for entry in kept if (record := await self._record(entry)) is not None]
                await self._publisher.publish(records, wait_s=self._publish_wait_s)
            except Unavailable as away:
                log.warning("queue.delayed_waits", count=len(kept), reason=away.message)
                await asyncio.sleep(away.retry_after_s)
                continue
            self._member.hand.done(entry.receipt for entry in kept)
            return

    async def _record(self, entry: Entry) -> Record | None:
        """In its channel, or, if that is not yet due, in a retry topic again. None if it had to be a dead letter."""
        assert entry.message is not None
        try:
            channel, due_at = due(entry.message.headers)
        except InvalidRequest as refusal:
            log.error("queue.malformed", topic=entry.place[0], offset=entry.offset, reason=refusal.message)
            await self._dead_letters.write(entry, JobError(code=refusal.code, message=refusal.message), 0)
            return None
        remaining_s = due_at - self._clock()
        message = without_ours(entry.message)
        if remaining_s > SLACK_S:
            tier, _ = tier_for(remaining_s, self._tiers)
            return to_record(self._names.retry_prefix + tier, message, more=delay_headers(entry.known, channel, due_at))
        return to_record(self._names.requests_topic(channel), message, more=attempt_headers(entry.known))


def _headers(entry: Entry) -> Mapping[str, str]:
    return entry.message.headers if entry.message is not None else {}
