"""The promises of `ports.queue`, as tests.

Where `QueueFeatures` lets adapters differ, a test reads `queue.features` and holds the queue to the promise that its
kind makes; it skips nothing. `shares_by_message` False is the larger difference: a message may then move to another
consumer whenever one comes or goes, but is never in two hands, and what a consumer gives back comes to itself first.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import pytest

from forebay.core.errors import Revoked
from forebay.core.event import JobError
from forebay.core.message import Channel, Message, ReceivedMessage
from forebay.ports.queue import Consumer, Queue
from forebay.testing.samples import message

CHANNEL = Channel("sample", "normal")
ERROR = JobError(code="model_failed", message="no face found")
T = TypeVar("T")

LONG_S = 30.0
"""A wait that a passing test never sits out."""


class QueuePlace(ABC):
    """Where a queue lives: opened by a start of the service, closed by a stop, opened again by the next start."""

    @abstractmethod
    async def open(self) -> Queue: ...

    @abstractmethod
    async def close(self, queue: Queue) -> None: ...


def ids(messages: Sequence[ReceivedMessage] | Sequence[Message]) -> list[str]:
    return [one.message.job_id if isinstance(one, ReceivedMessage) else one.job_id for one in messages]


async def receive_all(consumer: Consumer, count: int, wait_s: float = LONG_S) -> list[ReceivedMessage]:
    """Exactly `count`, in as many calls as it takes."""
    received: list[ReceivedMessage] = []
    while len(received) < count:
        more = await consumer.receive(count - len(received), wait_s)
        assert more, f"{len(received)} of {count} messages came"
        received += more
    return received


async def waits(task: asyncio.Task[T]) -> asyncio.Task[T]:
    """The task, after every chance to run on without something else happening."""
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    return task


class Hands:
    """Receives from several consumers and checks that no message is in two hands: whoever had it before must not hold
    it any more, which a queue that shares by message never lets happen without a word from its holder."""

    def __init__(self, *consumers: Consumer) -> None:
        self.consumers = consumers
        self.held: dict[str, tuple[Consumer, ReceivedMessage]] = {}

    async def receive(self, consumer: Consumer, most: int, wait_s: float) -> list[ReceivedMessage]:
        received = await consumer.receive(most, wait_s)
        for one in received:
            before = self.held.get(one.message.job_id)
            assert before is None or not before[0].holds(before[1]), "in two hands"
            self.held[one.message.job_id] = (consumer, one)
        return received

    async def receive_all(self, count: int) -> None:
        """Until `count` messages are in the hands of these consumers."""
        async with asyncio.timeout(LONG_S):
            while len(self.now_held()) < count:
                for consumer in self.consumers:
                    await self.receive(consumer, count, 0.02)

    def now_held(self) -> list[str]:
        return [name for name, (consumer, one) in self.held.items() if consumer.holds(one)]

    def of(self, consumer: Consumer) -> list[ReceivedMessage]:
        return [one for holder, one in self.held.values() if holder is consumer and holder.holds(one)]


async def settle(queue: Queue, *consumers: Consumer) -> None:
    """Until each of them gets messages, where each has parts of the channel; nothing is left over."""
    if queue.features.shares_by_message:
        return
    served: set[Consumer] = set()
    number = 10_000
    async with asyncio.timeout(LONG_S):
        while served != set(consumers):
            await queue.publish(CHANNEL, [message(number := number + 1) for _ in range(8)])
            served |= {consumer for consumer in consumers if await drain(consumer)}
        while await queue.depth(CHANNEL):
            for consumer in consumers:
                await drain(consumer)


async def drain(consumer: Consumer) -> bool:
    """Acknowledge what comes; whether anything did."""
    any_came = False
    while received := await consumer.receive(100, 0.05):
        await consumer.ack(received)
        any_came = True
    return any_came


@pytest.mark.anyio
class QueueContract:
    @pytest.fixture
    def place(self) -> QueuePlace:
        raise NotImplementedError("say where the queue lives")

    @pytest.fixture
    async def queue(self, place: QueuePlace) -> AsyncIterator[Queue]:
        queue = await place.open()
        yield queue
        await place.close(queue)

    # ------------------------------------------------------------------------------------------- publish and receive

    async def test_what_was_published_is_received_unchanged(self, queue: Queue) -> None:
        odd = Message(
            tenant="ténant",
            job_id="an-id",
            headers={"forebay-wire": "1", "ce_type": "x", "accent": "é ✓ \N{NO-BREAK SPACE}", "empty": ""},
            value=bytes(range(256)),
        )
        empty = Message(tenant="default", job_id="other-id", headers={"forebay-wire": "1"}, value=b"")
        await queue.publish(CHANNEL, [odd, empty])
        received = await receive_all(queue.consumer(CHANNEL), 2)
        assert sorted((one.message.job_id, one.message) for one in received) == [("an-id", odd), ("other-id", empty)]
        assert [one.attempt for one in received] == [0, 0]

    async def test_receive_gives_no_more_than_it_was_asked_for(self, queue: Queue) -> None:
        await queue.publish(CHANNEL, [message(n) for n in range(5)])
        assert len(await queue.consumer(CHANNEL).receive(3, LONG_S)) <= 3

    async def test_receive_gives_what_is_there_without_waiting_for_more(self, queue: Queue) -> None:
        await queue.publish(CHANNEL, [message(1)])
        async with asyncio.timeout(LONG_S / 2):
            assert ids(await queue.consumer(CHANNEL).receive(10, LONG_S)) == ids([message(1)])

    @pytest.mark.parametrize("wait_s", [0.0, 0.01])
    async def test_receive_ends_after_its_wait_when_nothing_comes(self, queue: Queue, wait_s: float) -> None:
        assert await queue.consumer(CHANNEL).receive(1, wait_s) == []

    async def test_a_waiting_receive_wakes_up_when_a_message_is_published(self, queue: Queue) -> None:
        waiting = await waits(asyncio.create_task(queue.consumer(CHANNEL).receive(1, LONG_S)))
        await queue.publish(CHANNEL, [message(1)])
        async with asyncio.timeout(LONG_S / 2):
            assert ids(await waiting) == ids([message(1)])

    async def test_publishing_nothing_does_nothing(self, queue: Queue) -> None:
        await queue.publish(CHANNEL, [])
        assert await queue.depth(CHANNEL) == 0

    async def test_many_messages_and_large_ones_arrive(self, queue: Queue) -> None:
        sent = [message(n, data=b"x" * (200_000 if n % 100 == 0 else n)) for n in range(500)]
        await asyncio.gather(*(queue.publish(CHANNEL, sent[n : n + 7]) for n in range(0, len(sent), 7)))
        received = await receive_all(queue.consumer(CHANNEL), len(sent))
        assert sorted(ids(received)) == ids(sent)
        assert {one.message.job_id: len(one.message.value) for one in received} == {
            one.job_id: len(one.value) for one in sent
        }

    async def test_channels_are_separate(self, queue: Queue) -> None:
        others = [Channel("sample", "high"), Channel("other", "normal")]
        await queue.publish(CHANNEL, [message(1)])
        for other in others:
            assert await queue.consumer(other).receive(1, 0.0) == []
            assert await queue.depth(other) == 0
        assert ids(await receive_all(queue.consumer(CHANNEL), 1)) == ids([message(1)])

    # ---------------------------------------------------------------------------------------------------- in one hand

    async def test_a_message_is_in_one_consumers_hands_at_a_time(self, queue: Queue) -> None:
        hands = Hands(*(queue.consumer(CHANNEL) for _ in range(3)))
        sent = [message(n) for n in range(60)]
        received: list[str] = []

        async def gather(consumer: Consumer) -> None:
            while len(hands.now_held()) < len(sent):
                received.extend(ids(await hands.receive(consumer, 4, 0.05)))

        readers = [asyncio.create_task(gather(consumer)) for consumer in hands.consumers]
        for n in range(0, len(sent), 6):
            await queue.publish(CHANNEL, sent[n : n + 6])
        async with asyncio.timeout(LONG_S):
            await asyncio.gather(*readers)
        assert sorted(hands.now_held()) == ids(sent)
        if queue.features.shares_by_message:
            assert sorted(received) == ids(sent)

    async def test_one_message_wakes_two_waiting_consumers_and_goes_to_one(self, queue: Queue) -> None:
        consumers = [queue.consumer(CHANNEL) for _ in range(2)]
        await settle(queue, *consumers)
        one, two = [await waits(asyncio.create_task(consumer.receive(1, LONG_S))) for consumer in consumers]
        await queue.publish(CHANNEL, [message(1)])
        async with asyncio.timeout(LONG_S / 2):
            done, waiting = await asyncio.wait({one, two}, return_when=asyncio.FIRST_COMPLETED)
        assert [ids(task.result()) for task in done] == [ids([message(1)])]
        number = 1
        async with asyncio.timeout(LONG_S / 2):
            while waiting:  # one message more, unless it is for parts of the other
                await queue.publish(CHANNEL, [message(number := number + 1)])
                done, waiting = await asyncio.wait(waiting, timeout=0.2)
        assert [ids(task.result()) for task in done] == [ids([message(number)])]
        assert number == 2 or not queue.features.shares_by_message

    @pytest.mark.parametrize("how", ["close", "nack"])
    @pytest.mark.parametrize("delay_s", [0.0, 0.01])
    async def test_what_one_gives_back_is_received_and_what_another_holds_is_not(
        self, queue: Queue, how: str, delay_s: float
    ) -> None:
        """Also for messages that have been delayed before."""
        one, two, three = consumers = [queue.consumer(CHANNEL) for _ in range(3)]
        hands = Hands(*consumers)
        await settle(queue, *consumers)
        await queue.publish(CHANNEL, [message(n) for n in range(10)])
        if delay_s:
            await hands.receive_all(10)
            for consumer in consumers:
                await consumer.nack(hands.of(consumer), delay_s)
        if queue.features.shares_by_message:
            await self._give_back_five(hands, how, one, two, three)
        else:
            await self._give_back_a_part(hands, how, one)

    async def _give_back_five(self, hands: Hands, how: str, one: Consumer, two: Consumer, three: Consumer) -> None:
        first, second = await receive_all(one, 5), await receive_all(two, 5)
        if how == "close":
            await one.close()
        else:
            await one.nack(first)
        again = await receive_all(three, 5)
        assert sorted(ids(again)) == sorted(ids(first))
        assert await three.receive(10, 0.0) == []
        await two.nack(second)
        assert sorted(ids(await receive_all(three, 5))) == sorted(ids(second))

    async def _give_back_a_part(self, hands: Hands, how: str, one: Consumer) -> None:
        """What `one` has is taken over by the others once it is closed; given back, it comes to itself."""
        await hands.receive_all(10)
        first = hands.of(one)
        if how == "close":
            await one.close()
            hands.consumers = tuple(consumer for consumer in hands.consumers if consumer is not one)
        else:
            await one.nack(first)
        await hands.receive_all(10)
        if how == "nack":
            assert sorted(ids(hands.of(one))) == sorted(ids(first))
        assert not any(one.holds(received) for received in first)

    async def test_a_cancelled_receive_loses_nothing(self, queue: Queue) -> None:
        """Canceled at each of several moments around the arrival of its message."""
        consumer = queue.consumer(CHANNEL)
        hands: list[str] = []
        for n in range(40):
            receiving = asyncio.create_task(consumer.receive(1, LONG_S))
            publishing = asyncio.create_task(queue.publish(CHANNEL, [message(n)]))
            if n % 2:
                await publishing
            for _ in range(n // 4):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving, publishing])
            if not receiving.cancelled():
                hands += ids(receiving.result())
        hands += ids(await receive_all(consumer, 40 - len(hands)))
        assert sorted(hands) == ids([message(n) for n in range(40)])

    # ------------------------------------------------------------------------------------------------------------ ack

    async def test_what_was_acknowledged_never_comes_back(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        received = await receive_all(consumer, 2)
        await consumer.ack([one for one in received if one.message.job_id == message(1).job_id])
        await consumer.close()
        again = queue.consumer(CHANNEL)
        assert ids(await receive_all(again, 1)) == ids([message(2)])
        assert await again.receive(1, 0.0) == []

    async def test_acknowledging_again_is_harmless(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        first, second = await receive_all(consumer, 2)
        await asyncio.gather(consumer.ack([first]), consumer.ack([first]))
        await consumer.ack([first])
        assert await queue.depth(CHANNEL) == 1
        await consumer.ack([first, second])
        assert await queue.depth(CHANNEL) == 0

    async def test_messages_may_be_acknowledged_in_any_order(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(n) for n in range(10)])
        received = await receive_all(consumer, 10)
        for one in received[1::2][::-1]:
            await consumer.ack([one])
        await consumer.close()
        again = await receive_all(queue.consumer(CHANNEL), 5)
        assert sorted(ids(again)) == sorted(ids(received[::2]))

    # ----------------------------------------------------------------------------------------------------------- nack

    async def test_what_was_given_back_is_received_again(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        await consumer.nack(await receive_all(consumer, 1))
        again = await receive_all(queue.consumer(CHANNEL) if queue.features.shares_by_message else consumer, 1)
        assert ids(again) == ids([message(1)])
        assert again[0].message == message(1)

    async def test_giving_back_wakes_a_waiting_consumer(self, queue: Queue) -> None:
        one = queue.consumer(CHANNEL)
        two = queue.consumer(CHANNEL) if queue.features.shares_by_message else one
        await queue.publish(CHANNEL, [message(1)])
        received = await receive_all(one, 1)
        waiting = await waits(asyncio.create_task(two.receive(1, LONG_S)))
        await one.nack(received)
        async with asyncio.timeout(LONG_S / 2):
            assert ids(await waiting) == ids([message(1)])

    async def test_a_delay_is_kept_and_ends_by_itself(self, queue: Queue) -> None:
        loop = asyncio.get_running_loop()
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        received = await receive_all(consumer, 1)
        given_back_at = loop.time()
        delay_s = consumer.delay_of(0.2)
        await consumer.nack(received, 0.2)
        assert await consumer.receive(1, 0.0) == []
        again = await receive_all(consumer, 1)
        assert ids(again) == ids([message(1)])
        assert loop.time() - given_back_at >= delay_s - 0.01  # two clocks: theirs and the loop's

    @pytest.mark.parametrize("delay_s", [0.01, 0.2, 1.0, 1e6])
    async def test_a_delay_is_never_shorter_than_asked_and_the_one_told_is_one_there_is(
        self, queue: Queue, delay_s: float
    ) -> None:
        consumer = queue.consumer(CHANNEL)
        told_s = consumer.delay_of(delay_s)
        assert told_s >= delay_s
        assert consumer.delay_of(told_s) == told_s

    async def test_a_delayed_message_holds_up_no_other(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        await consumer.nack(await receive_all(consumer, 1), LONG_S)
        await queue.publish(CHANNEL, [message(2)])
        async with asyncio.timeout(LONG_S / 2):
            assert ids(await receive_all(consumer, 1)) == ids([message(2)])
        assert await consumer.receive(1, 0.0) == []
        assert await queue.depth(CHANNEL) == 1 + queue.features.depth_counts_delayed

    async def test_a_delayed_message_wakes_a_consumer_that_waited_before(self, queue: Queue) -> None:
        one = queue.consumer(CHANNEL)
        two = queue.consumer(CHANNEL) if queue.features.shares_by_message else one
        await queue.publish(CHANNEL, [message(1)])
        received = await receive_all(one, 1)
        waiting = await waits(asyncio.create_task(two.receive(1, LONG_S)))
        await one.nack(received, 0.05)
        async with asyncio.timeout(LONG_S / 2):
            assert ids(await waiting) == ids([message(1)])

    # ------------------------------------------------------------------------------------------------------- attempts

    async def test_attempts_that_were_begun_are_counted(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        for attempt in range(3):
            received = await receive_all(consumer, 1)
            assert [one.attempt for one in received] == [attempt]
            await consumer.begin(received)
            await consumer.nack(received)

    async def test_a_message_that_was_not_begun_has_no_attempt_counted(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        received = await receive_all(consumer, 2)
        await consumer.begin([one for one in received if one.message.job_id == message(1).job_id])
        await consumer.nack(received)
        again = await receive_all(consumer, 2)
        assert {one.message.job_id: one.attempt for one in again} == {message(1).job_id: 1, message(2).job_id: 0}

    async def test_a_begin_that_was_retracted_counts_nothing(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        once, twice = received = await receive_all(consumer, 2)
        await consumer.begin(received)
        await consumer.begin([twice])
        await consumer.retract(received)
        await consumer.nack(received)
        again = {one.message.job_id: (one.attempt, one.interruptions) for one in await receive_all(consumer, 2)}
        assert again == {once.message.job_id: (0, 0), twice.message.job_id: (1, 0)}

    async def test_what_was_retracted_is_in_hand_and_its_holders_death_interrupts_nothing(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        retracted, gone = await receive_all(consumer, 2)
        await consumer.begin([retracted, gone])
        await consumer.ack([gone])
        await consumer.retract([retracted, gone])
        assert consumer.holds(retracted)
        await consumer.close()
        consumer = queue.consumer(CHANNEL)
        [again] = await receive_all(consumer, 1)
        assert (again.attempt, again.interruptions) == (0, 0)
        await consumer.begin([again])
        await consumer.close()
        [again] = await receive_all(queue.consumer(CHANNEL), 1)
        assert (again.attempt, again.interruptions) == (1, 1)

    async def test_attempts_survive_a_delay(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        received = await receive_all(consumer, 1)
        await consumer.begin(received)
        await consumer.nack(received, 0.01)
        assert [one.attempt for one in await receive_all(consumer, 1)] == [1]

    async def test_an_attempt_is_an_interruption_until_somebody_says_how_it_ended(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        received = await receive_all(consumer, 2)
        assert [one.interruptions for one in received] == [0, 0]
        await consumer.begin(received)
        told = [one for one in received if one.message.job_id == message(1).job_id]
        await consumer.nack(told)
        await consumer.close()
        for seen in (1, 2):
            consumer = queue.consumer(CHANNEL)
            again = await receive_all(consumer, 2)
            assert {one.message.job_id: one.interruptions for one in again} == {
                message(1).job_id: 0,
                message(2).job_id: seen,
            }
            cut_off = [one for one in again if one.interruptions]
            await consumer.begin(cut_off)
            await consumer.begin(cut_off)  # again in the same hand: nobody has died between
            await consumer.close()

    async def test_giving_back_what_was_not_begun_forgets_no_interruption(self, queue: Queue) -> None:
        await queue.publish(CHANNEL, [message(1)])
        consumer = queue.consumer(CHANNEL)
        await consumer.begin(await receive_all(consumer, 1))
        await consumer.close()
        consumer = queue.consumer(CHANNEL)
        await consumer.nack(await receive_all(consumer, 1))
        assert [one.interruptions for one in await receive_all(consumer, 1)] == [1]

    # ---------------------------------------------------------------------------------------------------- holds, reject

    async def test_a_message_is_held_until_something_is_said_of_it(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(n) for n in range(4)])
        done, back, later, dead = received = await receive_all(consumer, 4)
        await consumer.begin([done, dead])
        assert all(consumer.holds(one) for one in received)
        await consumer.ack([done])
        await consumer.nack([back])
        await consumer.nack([later], LONG_S)
        await consumer.reject([dead], ERROR)
        assert not any(consumer.holds(one) for one in received)

    async def test_nothing_is_held_after_a_close(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        received = await receive_all(consumer, 2)
        await consumer.begin(received[:1])
        await consumer.close()
        assert not any(consumer.holds(one) for one in received)

    @pytest.mark.parametrize("what", ["ack", "reject", "nack", "delay"])
    async def test_a_word_on_what_was_given_back_does_nothing(self, queue: Queue, what: str) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        received = await receive_all(consumer, 1)
        await consumer.nack(received)
        late = {
            "ack": lambda: consumer.ack(received),
            "reject": lambda: consumer.reject(received, ERROR),
            "nack": lambda: consumer.nack(received),
            "delay": lambda: consumer.nack(received, LONG_S),
        }
        await late[what]()
        assert await queue.depth(CHANNEL) == 1
        assert ids(await receive_all(consumer, 1)) == ids([message(1)])
        assert await consumer.receive(1, 0.0) == []

    async def test_what_is_not_in_hand_is_not_begun_and_nothing_with_it(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        held, gone = await receive_all(consumer, 2)
        await consumer.ack([gone])
        with pytest.raises(Revoked):
            await consumer.begin([held, gone])
        assert consumer.holds(held)
        await consumer.nack([held])
        again = await receive_all(consumer, 1)
        assert [(one.message, one.attempt, one.interruptions) for one in again] == [(held.message, 0, 0)]

    async def test_what_was_rejected_never_comes_back(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        received = await receive_all(consumer, 2)
        await consumer.begin(received)
        await consumer.reject(received[:1], ERROR)
        await consumer.reject(received[:1], ERROR)
        assert await queue.depth(CHANNEL) == 1
        await consumer.close()
        assert ids(await receive_all(queue.consumer(CHANNEL), 1)) == ids(received[1:])

    # ---------------------------------------------------------------------------------------------- close and restart

    async def test_closing_gives_back_at_once_with_attempts_counted(self, queue: Queue) -> None:
        one, two = queue.consumer(CHANNEL), queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1), message(2)])
        received = await receive_all(one, 2)
        await one.begin(received[:1])
        waiting = await waits(asyncio.create_task(two.receive(2, LONG_S)))
        await one.close()
        async with asyncio.timeout(LONG_S / 2):
            again = await waiting
            again += await receive_all(two, 2 - len(again))
        assert {r.message.job_id: r.attempt for r in again} == {
            received[0].message.job_id: 1,
            received[1].message.job_id: 0,
        }

    async def test_closing_waits_for_an_acknowledgement_that_is_under_way(self, queue: Queue) -> None:
        one, two = queue.consumer(CHANNEL), queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        acknowledging = asyncio.create_task(one.ack(await receive_all(one, 1)))
        await asyncio.sleep(0)
        await one.close()
        assert await two.receive(1, 0.0) == []
        await acknowledging
        assert await queue.depth(CHANNEL) == 0

    async def test_a_message_comes_after_a_restart_unless_it_was_acknowledged(self, place: QueuePlace) -> None:
        queue = await place.open()
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(n) for n in range(5)])
        received = {one.message.job_id: one for one in await receive_all(consumer, 5)}
        done, begun, held, returned, delayed = (received[message(n).job_id] for n in range(5))
        await consumer.ack([done])
        await consumer.begin([begun])
        await consumer.nack([returned])
        await consumer.nack([delayed], 0.05)
        await place.close(queue)

        queue = await place.open()
        expected = {one.message.job_id: 0 for one in (held, returned, delayed)} | {begun.message.job_id: 1}
        if not queue.features.survives_restart:
            expected = {}
        depth = await queue.depth(CHANNEL)
        assert depth == len(expected) or (depth == len(expected) - 1 and not queue.features.depth_counts_delayed)
        again = await receive_all(queue.consumer(CHANNEL), len(expected))
        assert {one.message.job_id: one.attempt for one in again} == expected
        assert all(one.interruptions == (one.message.job_id == begun.message.job_id) for one in again)
        assert all(one.message == received[one.message.job_id].message for one in again)
        await place.close(queue)

    async def test_a_delay_holds_over_a_restart(self, place: QueuePlace) -> None:
        queue = await place.open()
        consumer = queue.consumer(CHANNEL)
        await queue.publish(CHANNEL, [message(1)])
        await consumer.nack(await receive_all(consumer, 1), LONG_S)
        await place.close(queue)
        queue = await place.open()
        assert await queue.consumer(CHANNEL).receive(1, 0.0) == []
        features = queue.features
        assert await queue.depth(CHANNEL) == (features.survives_restart and features.depth_counts_delayed)
        await place.close(queue)

    # ---------------------------------------------------------------------------------------------------------- depth

    async def test_depth_counts_all_that_is_not_acknowledged(self, queue: Queue) -> None:
        consumer = queue.consumer(CHANNEL)
        assert await queue.depth(CHANNEL) == 0
        await queue.publish(CHANNEL, [message(n) for n in range(4)])
        assert await queue.depth(CHANNEL) == 4
        received = await receive_all(consumer, 3)
        await consumer.begin(received)
        await consumer.nack(received[:1], LONG_S)
        delayed = int(queue.features.depth_counts_delayed)
        assert await queue.depth(CHANNEL) == 3 + delayed
        await consumer.ack(received[1:])
        assert await queue.depth(CHANNEL) == 1 + delayed
        await consumer.close()
        assert await queue.depth(CHANNEL) == 1 + delayed
