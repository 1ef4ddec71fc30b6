"""A member of a consumer group, as the event loop sees it: a `Hand`, the `Reader` that fills it, and their joints."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import structlog

from forebay.adapters.kafka.dead_letters import DeadLetters
from forebay.adapters.kafka.entries import Entry, Request
from forebay.adapters.kafka.hand import ANY_NUMBER, Hand
from forebay.adapters.kafka.link import KafkaLink
from forebay.adapters.kafka.plan import ConsumerPlan
from forebay.adapters.kafka.reader import Reader
from forebay.adapters.kafka.records import from_record
from forebay.adapters.kafka.tracker import Mark
from forebay.adapters.kafka.waiting import Bell
from forebay.core.errors import ForebayError, InvalidRequest, Misconfigured, Unavailable
from forebay.core.event import JobError

log = structlog.get_logger(__name__)

CLOSE_WAIT_S = 4.0
"""For the thread to commit and to leave the group. If the brokers are away it is left to itself: nothing that it could
still do is more than what a death would leave undone."""

BURY_AGAIN_S, BURY_AGAIN_MOST_S = 1.0, 60.0
"""After a failure that time heals; longer and longer after one that somebody must see to."""


class Member:
    """Joins with the first `receive`. Records that nobody can read become dead letters by themselves."""

    def __init__(
        self,
        link: KafkaLink,
        plan: ConsumerPlan,
        group: str,
        topics: Sequence[str],
        dead_letters: DeadLetters,
        *,
        most_of_a_part: int = ANY_NUMBER,
    ) -> None:
        self.hand = Hand(self._ring, most_of_a_part=most_of_a_part)
        self._plan = plan
        self._dead_letters = dead_letters
        self._bell = Bell()
        names, clocks = link.names, link.clocks
        self._reader = Reader(
            link,
            plan,
            group,
            topics,
            self.hand,
            read=lambda record, headers: from_record(record, headers, names, clocks),
            unreadable=self._unreadable,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._burials: set[asyncio.Task[None]] = set()
        self._ending = 0

    async def receive(self, most: int, wait_s: float) -> list[tuple[Entry, Mark]]:
        """As Consumer.receive, with what is known of the attempts of each."""
        self._join_group()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            taken = self.hand.take(most)
            remaining_s = deadline - loop.time()
            if taken or remaining_s <= 0:
                return taken
            await self._bell.wait(remaining_s)

    async def commit(self, receipts: Sequence[int] = ()) -> None:
        """Commit what there is, with an attempt of each of these begun. Raises Revoked and Unavailable, as
        Consumer.begin."""
        if self._loop is None or self.hand.closing:
            return
        answered: asyncio.Future[None] = self._loop.create_future()
        request = Request(
            receipts=receipts,
            answer=lambda error: self._in_loop(_resolve, answered, error),
            deadline=time.monotonic() + self._plan.begin_wait_s,
        )
        self.hand.ask(request)
        try:
            async with asyncio.timeout(self._plan.begin_wait_s):
                await asyncio.shield(answered)
        except TimeoutError:
            if self.hand.withdraw(request):
                raise Unavailable("Kafka has not confirmed the commit in time") from None
            await answered  # it was settled in this instant
        except asyncio.CancelledError:
            self.hand.withdraw(request)
            raise

    @contextlib.asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """`close` waits until what is done inside is over."""
        self._ending += 1
        try:
            yield
        finally:
            self._ending -= 1
            self._bell.ring()

    async def close(self) -> None:
        while self._ending:
            await self._bell.wait(CLOSE_WAIT_S)
        self.hand.close()
        deadline = time.monotonic() + CLOSE_WAIT_S  # from now on, however many close beside us
        for burial in self._burials:
            burial.cancel()
        if self._burials:
            await asyncio.wait(self._burials)
        if not await asyncio.to_thread(lambda: self._reader.join(max(0.0, deadline - time.monotonic()))):
            log.warning("queue.left_without_goodbye")

    def _join_group(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # first: the thread will call it
            try:
                self._reader.start()
            except Misconfigured:
                self._loop = None
                raise

    # ------------------------------------------------------------------------------------------------- from the thread

    def _in_loop(self, call: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(call, *arguments)

    def _ring(self) -> None:
        self._in_loop(self._bell.ring)

    def _unreadable(self, entries: list[Entry]) -> None:
        self._in_loop(self._bury_all, entries)

    # ---------------------------------------------------------------------------------------------------- dead letters

    def bury(self, entry: Entry, refusal: InvalidRequest) -> None:
        """Make a dead letter of something in hand that can be used for nothing. Goes on by itself until it is one."""
        topic, partition = entry.place
        log.error("queue.malformed", topic=topic, partition=partition, offset=entry.offset, reason=refusal.message)
        burial = asyncio.get_running_loop().create_task(self._write_dead_letter(entry, refusal), name="dead letter")
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    def _bury_all(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            assert entry.refusal is not None
            self.bury(entry, entry.refusal)

    async def _write_dead_letter(self, entry: Entry, refusal: InvalidRequest) -> None:
        error = JobError(code=refusal.code, message=refusal.message)
        topic, partition = entry.place
        pause_s = BURY_AGAIN_S
        while self.hand.holds(entry.receipt):
            try:
                await self._dead_letters.write(entry, error, 0)
            except Unavailable as away:
                log.warning("queue.dead_letter_waits", reason=away.message)
                pause_s = BURY_AGAIN_S
            except Exception:  # kept and told: what is no dead letter yet must not be taken for done
                log.exception("queue.dead_letter_failed", topic=topic, partition=partition, offset=entry.offset)
                pause_s = min(2 * pause_s, BURY_AGAIN_MOST_S)
            else:
                self.hand.done([entry.receipt])
                return
            await asyncio.sleep(pause_s)


def _resolve(answered: asyncio.Future[None], error: ForebayError | None) -> None:
    if answered.done():
        return
    if error is None:
        answered.set_result(None)
    else:
        answered.set_exception(error)
