"""What a worker does when messages are taken from it, as happens when a partition goes to another worker."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.unit.worker.conftest import Bench, Gate, Handlers, until

from forebay.adapters.memory.queue import MemoryConsumer, MemoryQueue
from forebay.core.batching import BatchPolicy
from forebay.core.errors import PayloadTooLarge
from forebay.core.event import EventKind, JobError, JobEvent
from forebay.core.fact import Event
from forebay.core.message import Channel, ReceivedMessage
from forebay.core.retry import RetryPolicy
from forebay.ports.queue import Consumer
from forebay.worker.solitude import Solitude


class TakingQueue(MemoryQueue):
    """Takes messages out of its consumers' hands; also before a `begin` that was asked for. Notes what was rejected."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.shared, bench.clock)
        self.consumers: list[TakingConsumer] = []
        self.taken_at_begin: set[str] = set()
        self.rejected: list[tuple[str, str]] = []

    def consumer(self, channel: Channel) -> Consumer:
        consumer = TakingConsumer(self._waiting(channel), self._clock)
        consumer.queue = self
        self.consumers.append(consumer)
        return consumer

    def take(self, job: str) -> None:
        for consumer in self.consumers:
            consumer.lose(job)


class TakingConsumer(MemoryConsumer):
    queue: TakingQueue

    def lose(self, job: str) -> None:
        for receipt, item in list(self._hand.items()):
            if item.message.job_id == job:
                self._waiting.unacknowledged -= 1
                del self._hand[receipt]

    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        for job in self.queue.taken_at_begin & {one.message.job_id for one in received}:
            self.lose(job)
        await super().begin(received)

    async def reject(self, received: Sequence[ReceivedMessage], error: JobError) -> None:
        self.queue.rejected += [(one.message.job_id, error.code) for one in received]
        await super().reject(received, error)


@pytest.fixture
def taking(bench: Bench) -> TakingQueue:
    bench.queue = TakingQueue(bench)
    return bench.queue


async def test_what_was_taken_away_before_it_began_is_not_run(
    bench: Bench, taking: TakingQueue, handlers: Handlers, gate: Gate
) -> None:
    first = await bench.submit(0, gate.input)
    async with bench.worker(handlers.spec(batching=BatchPolicy(max_batch_size=1))):
        await gate.reached()
        kept, taken = await bench.submit(1), await bench.submit(2)  # the next batch, and one that waits behind it
        await until(lambda: bench.intake.in_hand == 3)
        taking.take(taken)
        gate.open()
        await bench.finals([first, kept])
        await until(lambda: bench.intake.in_hand == 0)
    assert [job for call in handlers.calls for job, _ in call] == [first, kept]
    assert bench.facts(taken) == []


async def test_what_is_taken_away_at_its_beginning_leaves_its_neighbours_to_run(
    bench: Bench, taking: TakingQueue, handlers: Handlers
) -> None:
    taken, *kept = [await bench.submit(n) for n in range(3)]
    taking.taken_at_begin = {taken}
    async with bench.worker(handlers.spec()):
        await bench.finals(kept)
        await until(lambda: bench.intake.in_hand == 0)
    assert {job: attempt for call in handlers.calls for job, attempt in call} == dict.fromkeys(kept, 1)


async def test_what_was_taken_away_while_it_ran_is_published_all_the_same(
    bench: Bench, taking: TakingQueue, handlers: Handlers, gate: Gate
) -> None:
    job = await bench.submit(0, gate.input)
    async with bench.worker(handlers.spec()):
        await gate.reached()
        taking.take(job)
        gate.open()
        assert (await bench.final(job)).kind is EventKind.SUCCEEDED
        await until(lambda: bench.intake.in_hand == 0)


async def test_what_was_taken_away_is_not_run_again_after_a_failed_batch(
    bench: Bench, taking: TakingQueue, handlers: Handlers, gate: Gate
) -> None:
    job = await bench.submit(0, gate.input)
    bad = await bench.submit(1, {"do": "fail"})
    async with bench.worker(handlers.spec(batching=BatchPolicy(max_batch_size=2, max_queue_delay_s=30.0))):
        await gate.reached()
        taking.take(job)
        gate.open()
        await bench.final(bad)
        await until(lambda: bench.intake.in_hand == 0)
    assert [attempt for call in handlers.calls for one, attempt in call if one == job] == [1]


async def test_a_failed_job_leaves_the_queue_as_a_dead_letter(
    bench: Bench, taking: TakingQueue, handlers: Handlers
) -> None:
    refused, retried = await bench.submit(0, {"do": "refuse"}), await bench.submit(1, {"do": "later"})
    async with bench.worker(handlers.spec(retry=RetryPolicy(max_attempts=1))):
        await bench.finals([refused, retried])
        await until(lambda: len(taking.rejected) == 2)
    assert sorted(taking.rejected) == sorted([(refused, "refused"), (retried, "not_now")])


async def test_an_output_that_the_log_will_never_take_fails_its_job_alone(
    bench: Bench, taking: TakingQueue, handlers: Handlers
) -> None:
    publish = bench.events.publish

    async def refuse_large(events: Sequence[Event]) -> None:
        if any(
            isinstance(event, JobEvent) and event.output is not None and event.output.size_bytes > 1000
            for event in events
        ):
            raise PayloadTooLarge("too large", limit_bytes=1000)
        await publish(events)

    bench.events.publish = refuse_large  # type: ignore[method-assign]  # a fault injector
    jobs = [await bench.submit(n, {"do": "large", "size": 2000} if n == 1 else None) for n in range(4)]
    async with bench.worker(handlers.spec(batching=BatchPolicy(max_batch_size=4, max_queue_delay_s=30.0))):
        finals = await bench.finals(jobs)
    codes = [final.error.code if final.error else final.kind.value for final in finals]
    assert codes == ["succeeded", "result_too_large", "succeeded", "succeeded"]
    assert [attempt for call in handlers.calls for _, attempt in call] == [1] * 4


async def test_a_suspect_waits_until_nothing_else_runs_in_the_process(
    bench: Bench, taking: TakingQueue, handlers: Handlers, gate: Gate
) -> None:
    """Also for a batch of another model, whose worker shares the same Solitude."""
    suspect = await bench.submit(0)
    consumer = bench.queue.consumer(bench.channel())
    await consumer.begin(await consumer.receive(1, 0.0))
    await consumer.close()
    solitude = Solitude()
    assert solitude.enter("another model", alone=False)
    async with bench.worker(handlers.spec(), solitude=solitude):
        await until(lambda: bench.intake.in_hand == 1)
        assert not solitude.enter("another model", alone=False)
        assert bench.facts(suspect) == []
        solitude.leave()
        assert (await bench.final(suspect)).attempt == 2
    assert solitude.enter("another model", alone=False)


async def test_a_suspect_waits_until_the_outcome_of_the_one_before_is_on_record(
    bench: Bench, taking: TakingQueue, handlers: Handlers
) -> None:
    """Should it kill the process, one that has just succeeded must not be counted a death for it once more."""
    first, second = await bench.submit(0), await bench.submit(1)
    consumer = bench.queue.consumer(bench.channel())
    await consumer.begin(await consumer.receive(2, 0.0))
    await consumer.close()
    bench.events.kinds, bench.events.away = {EventKind.SUCCEEDED}, 1000
    async with bench.worker(handlers.spec()):
        await until(lambda: bench.events.away < 1000)
        assert bench.facts(second) == []
        bench.events.away = 0
        assert [final.attempt for final in await bench.finals([first, second])] == [2, 2]
    assert [job for call in handlers.calls for job, _ in call] == [first, second]
