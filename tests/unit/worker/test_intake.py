"""What a worker takes in: every lane gets its share, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from tests.unit.worker.conftest import LONG_S, Bench, within

from forebay.core.errors import Revoked, Unavailable
from forebay.core.event import JobError
from forebay.core.lanes import WEIGHTS, Lane
from forebay.core.message import ReceivedMessage
from forebay.ports.queue import Consumer
from forebay.testing.samples import ACCEPTED_AT, job_id, message
from forebay.worker.intake import Intake

Taken = Sequence[tuple[Lane, ReceivedMessage]]


class AwayConsumer(Consumer):
    """Another consumer, whose `receive` raises Unavailable the next `away` times, and `begin` what it `refuses`
    with."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.away = 0
        self.refuses: BaseException | None = None

    async def receive(self, max_messages: int, wait_s: float) -> list[ReceivedMessage]:
        if self.away:
            self.away -= 1
            raise Unavailable("the queue is away")
        return await self._consumer.receive(max_messages, wait_s)

    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        if self.refuses is not None:
            raise self.refuses
        await self._consumer.begin(received)

    async def retract(self, received: Sequence[ReceivedMessage]) -> None:
        await self._consumer.retract(received)

    def holds(self, received: ReceivedMessage) -> bool:
        return self._consumer.holds(received)

    async def ack(self, received: Sequence[ReceivedMessage]) -> None:
        await self._consumer.ack(received)

    async def reject(self, received: Sequence[ReceivedMessage], error: JobError) -> None:
        await self._consumer.reject(received, error)

    async def nack(self, received: Sequence[ReceivedMessage], delay_s: float = 0.0) -> None:
        await self._consumer.nack(received, delay_s)

    def delay_of(self, delay_s: float) -> float:
        return self._consumer.delay_of(delay_s)

    async def close(self) -> None:
        await self._consumer.close()


@pytest.fixture
def consumers(bench: Bench) -> dict[Lane, AwayConsumer]:
    return {lane: AwayConsumer(bench.queue.consumer(bench.channel(lane))) for lane in Lane}


@pytest.fixture
def intake(consumers: dict[Lane, AwayConsumer]) -> Intake:
    return Intake(consumers, clock=lambda: ACCEPTED_AT)


async def publish(bench: Bench, lane: Lane, *numbers: int) -> None:
    await bench.queue.publish(bench.channel(lane), [message(n) for n in numbers])


def jobs(taken: Taken) -> list[str]:
    return sorted(received.message.job_id for _, received in taken)


def lanes(taken: Taken) -> Counter[Lane]:
    return Counter(lane for lane, _ in taken)


async def waiting(intake: Intake, max_messages: int = 100) -> asyncio.Task[list[tuple[Lane, ReceivedMessage]]]:
    """A receive that has found nothing and waits."""
    task = asyncio.create_task(intake.receive(max_messages, LONG_S))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_lanes_with_work_share_by_weight(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, *range(place * 100, place * 100 + 100))
    assert lanes(await intake.receive(12, 0.0)) == WEIGHTS


async def test_a_lane_whose_messages_have_waited_for_long_gets_as_many_turns_as_the_most_urgent(
    bench: Bench, consumers: dict[Lane, AwayConsumer]
) -> None:
    intake = Intake(consumers, clock=lambda: ACCEPTED_AT + 3600.0)
    await publish(bench, Lane.LOW, *range(60))
    await publish(bench, Lane.HIGH, *range(3600, 3660))
    await intake.receive(12, 0.0)  # from which it knows their ages
    assert lanes(await intake.receive(40, 0.0)) == {Lane.LOW: 20, Lane.HIGH: 20}


async def test_shares_hold_over_single_receives(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, *range(place * 100, place * 100 + 100))
    taken = [pair for _ in range(24) for pair in await intake.receive(1, 0.0)]
    assert lanes(taken) == {lane: 2 * weight for lane, weight in WEIGHTS.items()}


async def test_an_empty_lane_leaves_its_share_to_the_others(bench: Bench, intake: Intake) -> None:
    await publish(bench, Lane.NORMAL, *range(100))
    await publish(bench, Lane.LOW, *range(100, 200))
    assert lanes(await intake.receive(8, 0.0)) == {Lane.NORMAL: 6, Lane.LOW: 2}


async def test_a_lane_is_not_starved_while_the_others_are_never_empty(bench: Bench, intake: Intake) -> None:
    await publish(bench, Lane.LOW, 0)
    seen: list[str] = []
    for n in range(1, 13):
        await publish(bench, Lane.HIGH, 2 * n, 2 * n + 1)
        await publish(bench, Lane.NORMAL, 100 + 2 * n, 101 + 2 * n)
        seen += jobs(await intake.receive(1, 0.0))
    assert job_id(0) in seen


async def test_no_more_is_received_than_there_is_room_for(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, *range(place * 10, place * 10 + 10))
    assert len(await intake.receive(7, 0.0)) == 7


async def test_all_that_is_there_comes_at_once(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, *range(place * 10, place * 10 + 10))
    assert jobs(await intake.receive(100, LONG_S)) == [job_id(n) for n in range(30)]


@pytest.mark.parametrize("wait_s", [0.0, 0.01])
async def test_receiving_ends_after_its_wait_when_nothing_comes(intake: Intake, wait_s: float) -> None:
    assert await within(intake.receive(1, wait_s)) == []


@pytest.mark.parametrize("lane", Lane)
async def test_a_message_in_any_lane_ends_the_wait(lane: Lane, bench: Bench, intake: Intake) -> None:
    task = await waiting(intake)
    await publish(bench, lane, 1)
    assert lanes(await within(task)) == {lane: 1}


async def test_nothing_is_lost_when_all_lanes_deliver_at_the_same_instant(bench: Bench, intake: Intake) -> None:
    task = await waiting(intake, 2)
    for place, lane in enumerate(Lane):
        await publish(bench, lane, 2 * place, 2 * place + 1)
    taken = list(await within(task))
    while more := await intake.receive(2, 0.0):
        taken += more
    assert jobs(taken) == [job_id(n) for n in range(6)]


async def test_lanes_that_deliver_at_the_same_instant_give_no_more_than_there_is_room_for(
    bench: Bench, intake: Intake
) -> None:
    task = await waiting(intake, 2)
    for place, lane in enumerate(Lane):
        await publish(bench, lane, 2 * place, 2 * place + 1)
    assert len(await within(task)) <= 2


@pytest.mark.parametrize("moments", range(12))
async def test_a_cancelled_receive_loses_nothing(moments: int, bench: Bench, intake: Intake) -> None:
    task = await waiting(intake)
    for place, lane in enumerate(Lane):
        await publish(bench, lane, place)
    for _ in range(moments):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    taken = [] if task.cancelled() else task.result()
    taken += await intake.receive(100, 0.0)
    assert jobs(taken) == [job_id(n) for n in range(3)]


@pytest.mark.parametrize("lane", Lane)
async def test_a_lane_that_is_away_costs_no_message_of_another(
    lane: Lane, bench: Bench, intake: Intake, consumers: dict[Lane, AwayConsumer]
) -> None:
    for place, one in enumerate(Lane):
        await publish(bench, one, place)
    consumers[lane].away = 1
    taken: list[tuple[Lane, ReceivedMessage]] = []
    while len(taken) < 3:
        try:
            more = await intake.receive(100, 0.0)
        except Unavailable:  # as it was told to be; nothing may be lost by it
            continue
        assert more, "lost"
        taken += more
    assert jobs(taken) == [job_id(n) for n in range(3)]


async def test_a_lane_that_goes_away_during_the_wait_costs_no_message_of_another(
    bench: Bench, intake: Intake, consumers: dict[Lane, AwayConsumer]
) -> None:
    taking = asyncio.create_task(intake.receive(100, LONG_S))
    consumers[Lane.LOW].away = 2  # nothing there at first, then it is away
    await publish(bench, Lane.HIGH, 1)
    taken = await within(_until_back(intake, taking))
    assert jobs(taken) == [job_id(1)]


async def _until_back(intake: Intake, first: asyncio.Task[list[tuple[Lane, ReceivedMessage]]]) -> Taken:
    try:
        return await first
    except Unavailable:  # as it was told to be: asked again
        pass
    while True:
        try:
            return await intake.receive(100, LONG_S)
        except Unavailable:  # as above
            continue


async def test_an_absent_queue_is_said_to_be_absent(intake: Intake, consumers: dict[Lane, AwayConsumer]) -> None:
    for consumer in consumers.values():
        consumer.away = 1
    with pytest.raises(Unavailable):
        await intake.receive(1, LONG_S)


async def test_what_is_in_hand_is_counted(bench: Bench, intake: Intake) -> None:
    await publish(bench, Lane.HIGH, 1, 2)
    await publish(bench, Lane.LOW, 3)
    await intake.receive(100, 0.0)
    assert intake.in_hand == 3


@pytest.mark.parametrize("how", ["ack", "nack"])
async def test_what_is_let_go_is_no_longer_in_hand(how: str, bench: Bench, intake: Intake) -> None:
    await publish(bench, Lane.HIGH, 1, 2)
    await publish(bench, Lane.LOW, 3)
    taken = await intake.receive(100, 0.0)
    await getattr(intake, how)(taken[1:])
    assert (intake.in_hand, intake.released.is_set()) == (1, True)


async def test_what_is_let_go_twice_counts_once(bench: Bench, intake: Intake) -> None:
    await publish(bench, Lane.HIGH, 1, 2, 3)
    taken = await intake.receive(100, 0.0)
    await intake.nack(taken[:1])
    intake.drop(taken[:1])
    await intake.ack(taken[:2])
    assert intake.in_hand == 1


async def test_what_was_acknowledged_never_comes_back(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, place)
    await intake.ack(await intake.receive(100, 0.0))
    assert await bench.depth() == 0


async def test_what_was_given_back_comes_again_from_its_own_lane(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, place)
    await intake.nack(await intake.receive(100, 0.0))
    assert lanes(await intake.receive(100, 0.0)) == dict.fromkeys(Lane, 1)


async def test_a_delay_is_handed_on_to_every_lane(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, place)
    await intake.nack(await intake.receive(100, 0.0), delay_s=5.0)
    assert await intake.receive(100, 0.0) == []
    bench.clock.advance(5.0)
    assert len(await intake.receive(100, 0.0)) == 3


async def test_attempts_that_were_begun_are_counted_in_every_lane(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, place)
    taken = await intake.receive(100, 0.0)
    await intake.begin(taken)
    await intake.nack(taken)
    assert [received.attempt for _, received in await intake.receive(100, 0.0)] == [1, 1, 1]


@pytest.mark.parametrize("lane", Lane)
@pytest.mark.parametrize("error", [Revoked("gone"), Unavailable("away"), asyncio.CancelledError()])
async def test_where_one_lane_does_not_begin_no_other_has_begun(
    lane: Lane, error: BaseException, bench: Bench, intake: Intake, consumers: dict[Lane, AwayConsumer]
) -> None:
    for place, one in enumerate(Lane):
        await publish(bench, one, place)
    taken = await intake.receive(100, 0.0)
    await intake.begin(taken)  # as a batch that failed, whose halves run again
    consumers[lane].refuses = error
    with pytest.raises(type(error)):
        await intake.begin(taken)
    await intake.nack(taken)
    assert [received.attempt for _, received in await intake.receive(100, 0.0)] == [1, 1, 1]


async def test_closing_gives_back_what_is_in_hand(bench: Bench, intake: Intake) -> None:
    for place, lane in enumerate(Lane):
        await publish(bench, lane, place)
    await intake.receive(100, 0.0)
    await intake.close()
    again = Intake({lane: bench.queue.consumer(bench.channel(lane)) for lane in Lane})
    assert len(await again.receive(100, 0.0)) == 3
