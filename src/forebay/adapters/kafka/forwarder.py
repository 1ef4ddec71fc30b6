"""Brings delayed messages back to their channels.

A tier has one delay, so its partitions are in the order in which their messages are due, and only the first few of each
are looked at. Several forwarders share the partitions. A message is done when it is in its channel again: a death in
between brings it there twice, and the job runs twice at worst. A stop waits for both.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from forebay.adapters.kafka.attempts import attempt_headers, delay_headers, due, tier_for, without_ours
from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.entries import Entry
from forebay.adapters.kafka.event_log import events_partition
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.member import Member
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.publisher import Publisher
from forebay.adapters.kafka.records import Record, to_record
from forebay.core.errors import ForebayError, InvalidRequest, OutcomeUnknown, Unavailable
from forebay.core.event import EventKind, JobError, JobEvent
from forebay.core.message import Channel
from forebay.core.wire import encode_event

log = structlog.get_logger(__name__)

LOOK_AHEAD = 100
"""Messages of one partition that wait here: enough to forward thousands a second, little enough for any payload."""

LOOK_EVERY_S = 5.0
JITTER = 0.1
"""Of the tier's delay, added by chance, so that what failed together does not come back together."""

SLACK_S = 0.001
AGAIN_S = 1.0


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
        """Not before it is due by its own word, and not later than its tier allows. What is overdue, chance included,
        leaves at once: only LOOK_AHEAD wait here, and each wait would be one for all behind them."""
        tier_s = self._tier_s[entry.place[0]]
        try:
            _, due_at = due(entry.readable.headers)
        except InvalidRequest as refusal:
            self._member.bury(entry, refusal)
            return
        wait_s = min(due_at - self._clock(), tier_s) + JITTER * tier_s * self._random()
        self._push(entry, now + max(0.0, wait_s))

    def _push(self, entry: Entry, leaves_at: float) -> None:
        heapq.heappush(self._leaving, (leaves_at, next(self._numbers), entry))

    def _due(self, now: float) -> list[Entry]:
        entries = []
        while self._leaving and self._leaving[0][0] <= now:
            entries.append(heapq.heappop(self._leaving)[2])
        return entries

    async def _forward(self, due_now: list[Entry]) -> None:
        """To their channels, each channel by itself, and each whole: a stop waits for the one that is under way."""
        kept = [entry for entry, _ in self._member.hand.keep(entry.receipt for entry in due_now)]  # ours still
        by_topic: dict[str, list[tuple[Entry, Record]]] = {}
        for entry in kept:
            record = self._record(entry, self._clock())
            by_topic.setdefault(record.topic, []).append((entry, record))
        for leaving in by_topic.values():
            await _whole(self._send(leaving))

    async def _send(self, leaving: list[tuple[Entry, Record]]) -> None:
        """What cannot be written is tried again a moment later; what a channel does not take, because it was removed,
        goes round again, so that it is in nobody's way; what no topic takes ends here."""
        outcomes = await self._publish(leaving)
        if again := [entry for entry, _, error in outcomes if _no_such_channel(error)]:
            log.warning("queue.delayed_again", topic=leaving[0][1].topic, count=len(again))
            outcomes = [one for one in outcomes if not _no_such_channel(one[2])]
            outcomes += await self._publish([(entry, self._round_again(entry)) for entry in again])
        self._member.hand.done(entry.receipt for entry, _, error in outcomes if error is None)
        away = [(entry, error) for entry, _, error in outcomes if isinstance(error, Unavailable)]
        if away:
            self._wait_for_brokers([entry for entry, _ in away], away[0][1])
        for entry, _, error in outcomes:
            if error is not None and not isinstance(error, Unavailable):
                await self._fail(entry, error)

    async def _publish(self, leaving: list[tuple[Entry, Record]]) -> list[tuple[Entry, Record, ForebayError | None]]:
        """What became of each: they are written together, and none for another's sake a second time."""

        async def one(record: Record) -> ForebayError | None:
            try:
                await self._publisher.publish([record], wait_s=self._publish_wait_s)
            except ForebayError as error:
                return error
            return None

        errors = await asyncio.gather(*(one(record) for _, record in leaving))
        return [(entry, record, error) for (entry, record), error in zip(leaving, errors, strict=True)]

    async def _fail(self, entry: Entry, refusal: ForebayError) -> None:
        """It has become larger than its topic takes, or the topic takes less than it did: its job ends."""
        topic, partition = entry.place
        log.error("queue.delayed_refused", topic=topic, partition=partition, offset=entry.offset, code=refusal.code)
        error = JobError(code=refusal.code, message=f"it cannot be brought back from its delay: {refusal.message}")
        try:
            await self._publisher.publish([self._failed(entry, error)], wait_s=self._publish_wait_s)
            await self._dead_letters.write(entry, error, entry.known.attempt)
        except Unavailable as away:
            self._wait_for_brokers([entry], away)
        else:
            self._member.hand.done([entry.receipt])

    def _failed(self, entry: Entry, error: JobError) -> Record:
        message = entry.readable
        event = JobEvent(
            tenant=message.tenant,
            job_id=message.job_id,
            kind=EventKind.FAILED,
            at=self._clock(),
            attempt=entry.known.attempt,
            error=error,
        )
        partition = events_partition(message.tenant, message.job_id)
        return to_record(self._names.events_topic, encode_event(event), partition=partition)

    def _wait_for_brokers(self, entries: list[Entry], away: Unavailable) -> None:
        log.warning("queue.delayed_waits", topic=entries[0].place[0], count=len(entries), reason=away.message)
        for entry in entries:
            self._push(entry, asyncio.get_running_loop().time() + AGAIN_S)

    def _record(self, entry: Entry, now: float) -> Record:
        """In its channel, or, if that is not yet due, in a retry topic again."""
        channel, due_at = due(entry.readable.headers)
        if due_at > now + SLACK_S:
            return self._delayed(entry, channel, due_at, due_at - now)
        more = attempt_headers(entry.known)
        return to_record(self._names.requests_topic(channel), without_ours(entry.readable), more=more)

    def _round_again(self, entry: Entry) -> Record:
        longest_s = max(self._tiers.values())
        channel, _ = due(entry.readable.headers)
        return self._delayed(entry, channel, self._clock() + longest_s, longest_s)

    def _delayed(self, entry: Entry, channel: Channel, due_at: float, delay_s: float) -> Record:
        tier, _ = tier_for(delay_s, self._tiers)
        more = delay_headers(entry.known, channel, due_at)
        return to_record(self._names.retry_prefix + tier, without_ours(entry.readable), more=more)


def _no_such_channel(error: ForebayError | None) -> bool:
    """Nothing was written; waiting for the same topic may be in vain."""
    return isinstance(error, Unavailable) and not isinstance(error, OutcomeUnknown)


async def _whole(what: Coroutine[Any, Any, None]) -> None:
    """Cancelled, it is over when `what` is."""
    going = asyncio.create_task(what, name="forward")
    try:
        await asyncio.shield(going)
    except asyncio.CancelledError:
        await asyncio.wait({going})
        going.result()
        raise
