"""What becomes of jobs: every one ends as it should, whatever its neighbours, its runner and the backends do."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs
from tests.unit.worker.conftest import LONG_S, Bench, Gate, Handlers, until, within

from forebay.adapters.memory.queue import MemoryConsumer, MemoryQueue
from forebay.core.batching import BatchPolicy
from forebay.core.errors import Unavailable
from forebay.core.event import EventKind, JobError, JobEvent, JobRequest
from forebay.core.job import JobStatus, apply
from forebay.core.lanes import Lane
from forebay.core.log_clock import LogClock
from forebay.core.message import Channel, ReceivedMessage
from forebay.core.model import ModelLimits, ModelSpec
from forebay.core.payload import JSON, BlobRef, Payload
from forebay.core.retry import RetryPolicy
from forebay.core.wire import encode_request
from forebay.ports.event_log import START
from forebay.ports.queue import Consumer
from forebay.testing.clock import HandClock
from forebay.testing.samples import TENANT, job_id, request
from forebay.worker import frames, outcomes
from forebay.worker.worker import Worker


def together(handlers: Handlers, count: int, **facts: Any) -> ModelSpec:
    """A model that takes `count` jobs in one batch, and waits for them."""
    return handlers.spec(batching=BatchPolicy(max_batch_size=count, max_queue_delay_s=LONG_S), **facts)


def one_by_one(handlers: Handlers, **facts: Any) -> ModelSpec:
    return handlers.spec(batching=BatchPolicy(max_batch_size=1), **facts)


def word(event: JobEvent) -> str:
    """A final event in one word: its error's code, else its kind."""
    return event.error.code if event.error else event.kind.value


async def run_together(bench: Bench, handlers: Handlers, *values: Any, **facts: Any) -> list[JobEvent]:
    """How these inputs end that are in one batch at first; job n is the n-th of them, from 1."""
    jobs = [await bench.submit(n, value) for n, value in enumerate(values, start=1)]
    async with bench.worker(together(handlers, len(values), **facts)):
        return await bench.finals(jobs)


# -------------------------------------------------------------------------------------------------------- the good case


async def test_a_job_is_started_and_succeeds(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1)
    async with bench.worker(handlers.spec()):
        await bench.final(job)
    assert bench.kinds(job) == [("started", 1), ("succeeded", 1)]


async def test_an_output_comes_from_the_input_of_its_own_job(bench: Bench, handlers: Handlers) -> None:
    finals = await run_together(bench, handlers, *[{"do": "echo", "for": n} for n in range(8)])
    assert [json.loads(one.output.data or b"")["for"] for one in finals if one.output] == list(range(8))


async def test_jobs_that_wait_run_in_one_batch(bench: Bench, handlers: Handlers) -> None:
    await run_together(bench, handlers, *[{"do": "echo"}] * 4)
    assert handlers.calls == [[(job_id(n), 1) for n in range(1, 5)]]


async def test_a_final_event_tells_who_ran_what_and_how_long(bench: Bench, handlers: Handlers) -> None:
    [final, _] = await run_together(bench, handlers, {"do": "echo"}, {"do": "echo"})
    assert final.metrics is not None
    assert (final.worker, final.model_version, final.metrics.batch_size) == ("w-1", "1", 2)


async def test_it_says_how_fast_it_gets_on(bench: Bench, handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.worker.runners.TELL_EVERY_S", 0.01)
    jobs = [await bench.submit(n, lane="low") for n in range(4)]
    async with bench.worker(together(handlers, 4)):
        await bench.finals(jobs)
        await until(lambda: bench.paces)
    [pace] = bench.paces
    assert (pace.batches, pace.batch_size) == (1, 4.0)
    assert pace.jobs_per_s > 0
    assert pace.service_s > 0
    assert list(pace.finished_per_s) == ["low"]


async def test_jobs_of_every_lane_are_served(bench: Bench, handlers: Handlers) -> None:
    jobs = [await bench.submit(n, lane=lane.value) for n, lane in enumerate(Lane)]
    async with bench.worker(handlers.spec()):
        assert {word(final) for final in await bench.finals(jobs)} == {"succeeded"}


async def test_a_job_that_ended_is_acknowledged(bench: Bench, handlers: Handlers) -> None:
    jobs = [await bench.submit(1), await bench.submit(2, {"do": "refuse"})]
    async with bench.worker(handlers.spec()):
        await bench.finals(jobs)
    assert await bench.depth() == 0


async def test_a_worker_holds_no_more_than_its_runners_can_soon_take(
    bench: Bench, handlers: Handlers, gate: Gate
) -> None:
    jobs = [await bench.submit(n, gate.input if n == 0 else None) for n in range(20)]
    async with bench.worker(one_by_one(handlers)):
        await gate.reached()
        assert bench.intake.in_hand == 3
        gate.open()
        await bench.finals(jobs)


# ----------------------------------------------------------------------------------------------- one harms no neighbour

HARMS = {"refuse": "refused", "fail": "model_error", "die": "runner_died"}


@pytest.mark.parametrize("harm", HARMS)
async def test_neighbours_of_a_bad_input_succeed(harm: str, bench: Bench, handlers: Handlers) -> None:
    finals = await run_together(bench, handlers, {"do": "echo"}, {"do": "echo"}, {"do": harm}, {"do": "echo"})
    assert [word(one) for one in finals] == ["succeeded", "succeeded", HARMS[harm], "succeeded"]


async def test_inputs_that_fit_no_frame_together_are_parted(
    bench: Bench, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "FRAME_MAX_BYTES", 3000)
    inputs = [{"do": "echo", "text": "x" * size} for size in (1500, 1500, 5000, 10)]
    finals = await run_together(bench, handlers, *inputs)
    assert [word(one) for one in finals] == ["succeeded", "succeeded", "batch_too_large", "succeeded"]


async def test_an_input_that_the_model_refuses_costs_one_run(bench: Bench, handlers: Handlers) -> None:
    await run_together(bench, handlers, {"do": "echo"}, {"do": "refuse"})
    assert len(handlers.calls) == 1


async def test_a_batch_that_raises_is_halved_until_the_guilty_input_is_alone(bench: Bench, handlers: Handlers) -> None:
    await run_together(bench, handlers, {"do": "echo"}, {"do": "echo"}, {"do": "fail"}, {"do": "echo"})
    one, two, three, four = (job_id(n) for n in range(1, 5))
    assert handlers.calls == [
        [(one, 1), (two, 1), (three, 1), (four, 1)],
        [(one, 2), (two, 2)],
        [(three, 2), (four, 2)],
        [(three, 3)],
        [(four, 3)],
    ]


async def test_attempts_in_the_events_are_those_that_the_model_ran(bench: Bench, handlers: Handlers) -> None:
    await run_together(bench, handlers, {"do": "echo"}, {"do": "fail"}, {"do": "echo"}, {"do": "echo"})
    ran = [pair for call in handlers.calls for pair in call]
    for job in (job_id(n) for n in range(1, 5)):
        attempts = [attempt for name, attempt in ran if name == job]
        started = [("started", attempt) for attempt in attempts]
        final = "failed" if job == job_id(2) else "succeeded"
        assert bench.kinds(job) == [*started, (final, attempts[-1])]


async def test_attempts_in_the_queue_are_those_that_the_model_ran(bench: Bench, handlers: Handlers) -> None:
    """As the next worker sees them, when this one is stopped in the third attempt."""
    jobs = [await bench.submit(1, {"do": "hang"}), await bench.submit(2)]
    async with bench.worker(
        together(handlers, 2, limits=ModelLimits(run_timeout_s=0.2)), stop_grace_s=0.01, close_grace_s=0.1
    ) as worker:
        await until(lambda: (jobs[0], 3) in [pair for call in handlers.calls for pair in call])
        worker.stop()
        await within(bench.running)
    [again] = await bench.queue.consumer(bench.channel()).receive(2, 0.0)
    assert (again.message.job_id, again.attempt) == (jobs[0], 3)


async def test_a_job_that_kills_its_runner_ends_after_the_attempts_that_its_model_allows(
    bench: Bench, handlers: Handlers
) -> None:
    job = await bench.submit(1, {"do": "die"})
    async with bench.worker(one_by_one(handlers, retry=RetryPolicy(max_attempts=2))):
        final = await bench.final(job)
    assert (word(final), final.attempt) == ("runner_died", 2)


async def test_a_job_that_hangs_ends_with_run_timeout(bench: Bench, handlers: Handlers) -> None:
    limits, retry = ModelLimits(run_timeout_s=0.3), RetryPolicy(max_attempts=1)
    finals = await run_together(bench, handlers, {"do": "echo"}, {"do": "hang"}, limits=limits, retry=retry)
    assert [word(one) for one in finals] == ["succeeded", "run_timeout"]


async def test_a_runner_killed_from_outside_costs_an_attempt_and_no_job(
    bench: Bench, handlers: Handlers, gate: Gate
) -> None:
    job = await bench.submit(1, gate.input)
    async with bench.worker(handlers.spec()):
        await gate.reached()
        os.kill(bench.runners.pids[0], signal.SIGKILL)
        gate.open()
        await until(lambda: len(handlers.calls) == 2)
        await gate.reached()
        gate.open()
        final = await bench.final(job)
    assert (word(final), final.attempt) == ("succeeded", 2)


async def test_a_job_that_overruns_its_own_run_timeout_costs_its_neighbours_nothing(
    bench: Bench, handlers: Handlers
) -> None:
    hasty = await bench.submit(0, {"do": "hang"}, run_timeout_s=0.3)
    patient = [await bench.submit(n) for n in range(1, 4)]
    async with bench.worker(together(handlers, 4, retry=RetryPolicy(max_attempts=1))):
        finals = await bench.finals([hasty, *patient])
    assert [word(one) for one in finals] == ["run_timeout", "succeeded", "succeeded", "succeeded"]


async def test_a_run_timeout_of_a_job_beats_its_models(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "hang"}, run_timeout_s=0.2)
    async with bench.worker(one_by_one(handlers, retry=RetryPolicy(max_attempts=1))):
        assert word(await bench.final(job)) == "run_timeout"


async def test_a_run_timeout_of_a_job_is_never_longer_than_its_models(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "hang"}, run_timeout_s=1e9)
    limits = ModelLimits(run_timeout_s=0.2)
    async with bench.worker(one_by_one(handlers, limits=limits, retry=RetryPolicy(max_attempts=1))):
        assert word(await bench.final(job)) == "run_timeout"


# --------------------------------------------------------------------------------------------------------- start_within


async def test_a_job_that_was_not_started_in_time_expires(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, start_within_s=5.0)
    bench.clock.advance(5.0)
    async with bench.worker(handlers.spec()):
        await bench.final(job)
    assert (bench.kinds(job), handlers.calls) == ([("expired", 0)], [])


async def test_a_job_has_all_the_time_that_it_gave(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, start_within_s=5.0)
    bench.clock.advance(4.999)
    async with bench.worker(handlers.spec()):
        assert word(await bench.final(job)) == "succeeded"


async def test_a_model_may_say_when_its_jobs_expire(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1)
    bench.clock.advance(5.0)
    async with bench.worker(handlers.spec(limits=ModelLimits(start_within_s=5.0))):
        assert word(await bench.final(job)) == "expired"


async def test_a_job_that_expires_by_its_model_does_so_whichever_broker_takes_the_word_for_it(
    bench: Bench, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was asked for the time is ahead of the one that takes it, and no row knows of a limit that came
    after the job."""
    behind = HandClock()
    bench.shared.clock = LogClock(0.0, wall=behind, elapsed=behind)

    async def now() -> float:
        return bench.clock.now

    monkeypatch.setattr(bench.events, "now", now)
    await bench.submit(1)
    bench.clock.advance(5.0)
    behind.advance(4.9)
    async with bench.worker(handlers.spec(limits=ModelLimits(start_within_s=5.0))):
        await bench.final(job_id(1))
    [batch] = await bench.events.read({"log": START}, 10, 0.0)
    seen = functools.reduce(apply, (fact for fact in batch.facts if isinstance(fact, JobRequest | JobEvent)), None)
    assert seen is not None
    assert seen.status is JobStatus.EXPIRED


async def test_a_wall_clock_that_jumps_ahead_expires_nothing(bench: Bench, handlers: Handlers) -> None:
    unmoved = HandClock()
    bench.shared.clock = LogClock(0.0, wall=unmoved, elapsed=unmoved)
    job = await bench.submit(1, start_within_s=5.0)
    bench.clock.advance(5 * 3600.0)
    async with bench.worker(handlers.spec()):
        assert word(await bench.final(job)) == "succeeded"


async def test_a_job_that_is_older_than_any_may_be_fails_without_a_run(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, max_life_s=3600.0)
    bench.clock.advance(3600.0)
    async with bench.worker(handlers.spec()):
        final = await bench.final(job)
    assert (word(final), final.attempt, final.not_before, handlers.calls) == ("deadline", 0, bench.clock.now, [])


async def test_a_job_that_was_started_does_not_expire(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, start_within_s=5.0)
    consumer = bench.queue.consumer(bench.channel())
    received = await consumer.receive(1, 0.0)
    await consumer.begin(received)
    await consumer.nack(received)
    bench.clock.advance(6.0)
    async with bench.worker(handlers.spec()):
        final = await bench.final(job)
    assert (word(final), final.attempt) == ("succeeded", 2)


async def test_a_job_that_expires_in_hand_is_not_run(bench: Bench, handlers: Handlers, gate: Gate) -> None:
    first = await bench.submit(1, gate.input)
    async with bench.worker(together(handlers, 1, limits=ModelLimits(run_timeout_s=LONG_S))):
        await gate.reached()
        second = await bench.submit(2)  # in the runner already, behind the first
        await until(lambda: ("started", 1) in bench.kinds(second))
        third = await bench.submit(3, start_within_s=5.0)
        await until(lambda: bench.intake.in_hand == 3)
        bench.clock.advance(5.0)
        gate.open()
        finals = await bench.finals([first, second, third])
    assert [word(one) for one in finals] == ["succeeded", "succeeded", "expired"]


# ------------------------------------------------------------------------------------------------ what cannot be served


async def test_a_message_that_nobody_can_read_fails_its_job(bench: Bench, handlers: Handlers) -> None:
    unreadable = structs.replace(encode_request(request(1)), headers={"ce_type": "io.forebay.job.requested.v1"})
    await bench.publish(unreadable)
    async with bench.worker(handlers.spec()):
        final = await bench.final(unreadable.job_id)
    assert (word(final), final.attempt, await bench.depth()) == ("malformed_request", 0, 0)


async def test_jobs_beside_an_unreadable_message_succeed(bench: Bench, handlers: Handlers) -> None:
    await bench.publish(structs.replace(encode_request(request(1)), headers={}))
    jobs = [await bench.submit(n) for n in (2, 3)]
    async with bench.worker(handlers.spec()):
        assert [word(one) for one in await bench.finals(jobs)] == ["succeeded", "succeeded"]


async def test_a_version_that_is_not_served_fails_its_job(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, version="2")
    async with bench.worker(handlers.spec()):
        final = await bench.final(job)
    assert final.error is not None
    assert final.error.code == "version_not_served"
    assert final.error.message == "version 2 is not served; version 1 is"


async def test_a_version_asked_for_by_name_is_served(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, version="1")
    async with bench.worker(handlers.spec()):
        assert word(await bench.final(job)) == "succeeded"


async def in_blob(bench: Bench, number: int, stored: bytes | None = None) -> str:
    """A job whose input lies in the blob store; `stored` is what lies there in its place."""
    data = b'{"do": "echo"}'
    blob = await bench.blobs.put(TENANT, job_id(number), data)
    bench.blobs.blobs[blob.name] = data if stored is None else stored
    return await bench.submit(number, input=Payload(media_type=JSON, blob=blob))


async def test_an_input_in_the_blob_store_is_fetched(bench: Bench, handlers: Handlers) -> None:
    job = await in_blob(bench, 1)
    async with bench.worker(handlers.spec()):
        final = await bench.final(job)
    assert final.output == Payload(media_type=JSON, data=b'{"do":"echo"}')


async def test_a_missing_input_fails_its_job_without_an_attempt(bench: Bench, handlers: Handlers) -> None:
    missing = Payload(
        media_type=JSON, blob=BlobRef(name=f"{TENANT}/{job_id(1)}/{'0' * 64}", size_bytes=1, sha256="0" * 64)
    )
    job = await bench.submit(1, input=missing)
    async with bench.worker(handlers.spec()):
        final = await bench.final(job)
    assert (word(final), final.attempt, handlers.calls) == ("input_lost", 0, [])


async def test_a_damaged_input_fails_its_job_alone(bench: Bench, handlers: Handlers) -> None:
    jobs = [await in_blob(bench, 1), await in_blob(bench, 2, b"damaged"), await in_blob(bench, 3)]
    async with bench.worker(together(handlers, 3)):
        assert [word(one) for one in await bench.finals(jobs)] == ["succeeded", "input_lost", "succeeded"]


async def test_an_output_above_the_inline_limit_is_a_blob(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "large", "size": 100})
    async with bench.worker(handlers.spec(), inline_limit_bytes=100):
        final = await bench.final(job)
    assert final.output is not None
    assert final.output.blob is not None
    assert await bench.blobs.get(final.output.blob) == b'"' + b"x" * 100 + b'"'


async def test_an_output_that_has_no_name_as_a_blob_fails_its_job_alone(bench: Bench, handlers: Handlers) -> None:
    """As that of a foreign record may, whose id is what its producer chose."""
    large = {"do": "large", "size": 100}
    jobs = [await bench.submit(1, large), await bench.submit(2, large, job_id="no name/1"), await bench.submit(3)]
    async with bench.worker(together(handlers, 3), inline_limit_bytes=99):
        finals = await bench.finals(jobs)
    assert [word(one) for one in finals] == ["succeeded", "result_not_stored", "succeeded"]
    assert [one.attempt for one in finals] == [1, 1, 1]


async def test_an_output_at_the_inline_limit_travels_with_its_event(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "large", "size": 98})
    async with bench.worker(handlers.spec(), inline_limit_bytes=100):
        final = await bench.final(job)
    assert final.output == Payload(media_type=JSON, data=b'"' + b"x" * 98 + b'"')


# -------------------------------------------------------------------------------------------------- after a dead worker


async def interrupt(bench: Bench, attempts: int, *, deaths: int = 1) -> None:
    """A worker died in the last `deaths` of `attempts` attempts of the message that waits; the others ended with a
    word."""
    for attempt in range(1, attempts + 1):
        consumer = bench.queue.consumer(bench.channel())
        received = await consumer.receive(1, 0.0)
        assert received
        await consumer.begin(received)
        if attempt <= attempts - deaths:
            await consumer.nack(received)
        await consumer.close()


async def test_a_job_whose_attempts_all_ended_with_their_worker_fails_unrun(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1)
    await interrupt(bench, 3, deaths=3)
    async with bench.worker(handlers.spec(retry=RetryPolicy(max_attempts=3))):
        final = await bench.final(job)
    assert (word(final), final.attempt, handlers.calls) == ("worker_lost", 3, [])


async def test_attempts_that_shared_anothers_failure_are_no_deaths_of_its_worker(
    bench: Bench, handlers: Handlers
) -> None:
    job = await bench.submit(1)
    await interrupt(bench, 3, deaths=1)
    async with bench.worker(handlers.spec(retry=RetryPolicy(max_attempts=3))):
        final = await bench.final(job)
    assert (word(final), final.attempt) == ("succeeded", 4)


async def test_parameters_with_numbers_beyond_64_bits_reach_the_model(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, parameters={"n": 10**30})
    async with bench.worker(handlers.spec()):
        assert word(await bench.final(job)) == "succeeded"


async def test_a_reference_to_what_is_no_blob_of_the_job_fails_it(bench: Bench, handlers: Handlers) -> None:
    foreign = Payload(media_type=JSON, blob=BlobRef(name="../../etc/passwd", size_bytes=1, sha256="0" * 64))
    await bench.publish(encode_request(structs.replace(request(1), input=foreign)))
    async with bench.worker(handlers.spec()):
        assert word(await bench.final(request(1).job_id)) == "malformed_request"


async def test_a_job_that_may_have_killed_a_worker_runs_alone(bench: Bench, handlers: Handlers) -> None:
    jobs = [await bench.submit(0)]
    await interrupt(bench, 1)
    jobs += [await bench.submit(n) for n in (1, 2)]
    async with bench.worker(together(handlers, 2)):
        await bench.finals(jobs)
    assert sorted(handlers.calls) == sorted([[(jobs[0], 2)], [(jobs[1], 1), (jobs[2], 1)]])


async def test_a_job_that_was_given_back_has_company_again(bench: Bench, handlers: Handlers) -> None:
    jobs = [await bench.submit(0)]
    consumer = bench.queue.consumer(bench.channel())
    received = await consumer.receive(1, 0.0)
    await consumer.begin(received)
    await consumer.nack(received)
    jobs += [await bench.submit(1)]
    async with bench.worker(together(handlers, 2)):
        await bench.finals(jobs)
    assert [sorted(call) for call in handlers.calls] == [[(jobs[0], 2), (jobs[1], 1)]]


# ---------------------------------------------------------------------------------------------------------------- retry

PATIENT = RetryPolicy(max_attempts=2, first_delay_s=10.0)
DELAY_S = 7.5
"""What PATIENT makes of the bench's luck (0.5) after the first attempt."""


@pytest.mark.parametrize(("do", "code"), [("later", "not_now"), ("later_all", "nobody_now")])
async def test_a_failure_that_may_pass_puts_the_job_back_with_its_reason(
    do: str, code: str, bench: Bench, handlers: Handlers
) -> None:
    job = await bench.submit(1, {"do": do})
    async with bench.worker(handlers.spec(retry=PATIENT)):
        await until(lambda: len(bench.facts(job)) == 2)
    assert bench.kinds(job) == [("started", 1), ("queued", 1)]
    error = bench.facts(job)[1].error
    assert error
    assert (error.code, error.retryable) == (code, True)
    labels = {"model": handlers.spec().name, "code": code}
    assert bench.metrics.registry.get_sample_value("forebay_attempts_retried_total", labels) == 1


async def let_it_pass_by(bench: Bench, number: int) -> None:
    """Another job runs and ends, so that whatever was due has been received."""
    await bench.final(await bench.submit(number))


async def test_a_job_put_back_waits_as_long_as_its_policy_says(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "later"})
    async with bench.worker(handlers.spec(retry=PATIENT)):
        await until(lambda: len(bench.facts(job)) == 2)
        bench.clock.advance(DELAY_S - 0.001)
        await let_it_pass_by(bench, 2)
        before = len(bench.facts(job))
        bench.clock.advance(0.002)
        await let_it_pass_by(bench, 3)
        await bench.final(job)
    assert before == 2


async def test_a_job_put_back_tells_the_time_that_its_queue_makes_of_the_delay(
    bench: Bench, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryConsumer, "delay_of", lambda _, delay_s: max(delay_s, 30.0))
    job = await bench.submit(1, {"do": "later"})
    async with bench.worker(handlers.spec(retry=PATIENT)):
        await until(lambda: len(bench.facts(job)) == 2)
    assert bench.facts(job)[1].due_at == bench.clock.now + 30.0


async def test_a_job_fails_when_its_attempts_are_used_up(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "later"})
    async with bench.worker(handlers.spec(retry=PATIENT)):
        await until(lambda: len(bench.facts(job)) == 2)
        bench.clock.advance(DELAY_S + 0.001)
        await let_it_pass_by(bench, 2)
        await bench.final(job)
    assert bench.kinds(job) == [("started", 1), ("queued", 1), ("started", 2), ("failed", 2)]


async def test_a_failure_that_will_not_pass_is_not_tried_again(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "refuse"})
    async with bench.worker(handlers.spec()):
        final = await bench.final(job)
    assert (final.attempt, final.error) == (1, JobError(code="refused", message="refused"))


# ------------------------------------------------------------------------------------------------ backends that go away


async def test_an_outcome_waits_for_the_log_and_costs_no_second_run(bench: Bench, handlers: Handlers) -> None:
    bench.events.kinds, bench.events.away = {EventKind.SUCCEEDED}, 1
    job = await bench.submit(1)
    async with bench.worker(handlers.spec()):
        await bench.final(job)
    assert (bench.kinds(job), handlers.calls) == ([("started", 1), ("succeeded", 1)], [[(job, 1)]])


class UncountingQueue(MemoryQueue):
    """Raises Unavailable for the next `away` attempts that are to be counted, after `held` was set."""

    def __init__(self, bench: Bench, away: int) -> None:
        super().__init__(bench.shared, bench.clock)
        self.away = away
        self.asked, self.held = asyncio.Event(), asyncio.Event()

    def consumer(self, channel: Channel) -> Consumer:
        consumer = UncountingConsumer(self._waiting(channel), self._clock)
        consumer.queue = self
        return consumer


class UncountingConsumer(MemoryConsumer):
    queue: UncountingQueue

    async def begin(self, received: Sequence[ReceivedMessage]) -> None:
        self.queue.asked.set()
        await self.queue.held.wait()
        if self.queue.away:
            self.queue.away -= 1
            raise Unavailable("the queue is away")
        await super().begin(received)


async def test_a_job_whose_attempt_could_not_be_counted_runs_later(bench: Bench, handlers: Handlers) -> None:
    bench.queue = queue = UncountingQueue(bench, 1)
    queue.held.set()
    job = await bench.submit(1)
    async with bench.worker(handlers.spec()):
        await until(lambda: not queue.away and not bench.intake.in_hand)
        unrun = (handlers.calls, bench.kinds(job))
        bench.clock.advance(60.0)
        await let_it_pass_by(bench, 2)
        assert word(await bench.final(job)) == "succeeded"
    assert unrun == ([], [])


async def test_a_job_is_called_started_only_once_its_attempt_is_counted(bench: Bench, handlers: Handlers) -> None:
    """Else what is not counted expires, and is running for ever to whoever asks."""
    bench.queue = queue = UncountingQueue(bench, 1)
    job = await bench.submit(1, start_within_s=5.0)
    async with bench.worker(handlers.spec()):
        await within(queue.asked.wait())
        await let_everybody_else_run()
        queue.held.set()
        await until(lambda: not bench.intake.in_hand)
        bench.clock.advance(60.0)
        assert word(await bench.final(job)) == "expired"
    seen = functools.reduce(apply, bench.facts(job), None)
    assert seen is not None
    assert (seen.status, seen.attempts) == (JobStatus.EXPIRED, 0)


async def let_everybody_else_run() -> None:
    """Whatever can go on without us has done so."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_that_a_job_has_started_is_told_until_the_log_takes_it(bench: Bench, handlers: Handlers) -> None:
    bench.events.kinds, bench.events.away = {EventKind.STARTED}, 1
    job = await bench.submit(1)
    async with bench.worker(handlers.spec()):
        await bench.final(job)
    assert (bench.kinds(job), handlers.calls) == ([("started", 1), ("succeeded", 1)], [[(job, 1)]])


async def test_a_stop_ends_while_the_log_takes_no_start(bench: Bench, handlers: Handlers) -> None:
    bench.events.kinds, bench.events.away = {EventKind.STARTED}, 1_000_000
    job = await bench.submit(1)
    async with bench.worker(handlers.spec(), stop_grace_s=0.1, close_grace_s=0.1) as worker:
        await until(lambda: handlers.calls)
        worker.stop()
        await within(bench.running, 10.0)
    [again] = await bench.queue.consumer(bench.channel()).receive(10, 0.0)
    assert (again.message.job_id, again.attempt) == (job, 1)


# ----------------------------------------------------------------------------------------------------------------- stop


async def stopped(bench: Bench, worker: Worker) -> None:
    worker.stop()
    await within(bench.running)


async def test_a_stop_lets_a_running_batch_end(bench: Bench, handlers: Handlers, gate: Gate) -> None:
    job = await bench.submit(1, gate.input)
    async with bench.worker(handlers.spec()) as worker:
        await gate.reached()
        worker.stop()
        gate.open()
        await within(bench.running)
    assert (bench.kinds(job)[-1], await bench.depth()) == (("succeeded", 1), 0)


async def test_a_stop_gives_back_what_waits(bench: Bench, handlers: Handlers, gate: Gate) -> None:
    jobs = [await bench.submit(n, gate.input if n == 0 else None) for n in range(6)]
    async with bench.worker(one_by_one(handlers)) as worker:
        await gate.reached()
        await until(lambda: bench.intake.in_hand == 3)
        worker.stop()
        gate.open()
        await within(bench.running)
    finished = {job for job in jobs if bench.facts(job) and bench.facts(job)[-1].kind.final}
    waiting = await bench.queue.consumer(bench.channel()).receive(10, 0.0)
    assert finished | {one.message.job_id for one in waiting} == set(jobs)
    assert len(finished) + len(waiting) == len(jobs)


async def test_what_a_stop_gives_back_has_no_attempt_more(bench: Bench, handlers: Handlers, gate: Gate) -> None:
    await bench.submit(0, gate.input)
    await bench.submit(1)
    last = await bench.submit(2)
    async with bench.worker(one_by_one(handlers)) as worker:
        await gate.reached()
        await until(lambda: bench.intake.in_hand == 3)
        worker.stop()
        gate.open()
        await within(bench.running)
    waiting = await bench.queue.consumer(bench.channel()).receive(10, 0.0)
    assert [(one.message.job_id, one.attempt) for one in waiting if one.message.job_id == last] == [(last, 0)]


async def test_a_batch_that_outlasts_the_grace_is_given_back_with_its_attempt(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "hang"})
    async with bench.worker(handlers.spec(), stop_grace_s=0.1, close_grace_s=0.1) as worker:
        await until(lambda: handlers.calls)
        await stopped(bench, worker)
    [again] = await bench.queue.consumer(bench.channel()).receive(10, 0.0)
    assert (again.message.job_id, again.attempt) == (job, 1)


async def test_a_stop_ends_before_the_model_has_loaded(bench: Bench, handlers: Handlers) -> None:
    await bench.submit(1)
    async with bench.worker(handlers.spec("import threading\nthreading.Event().wait()")) as worker:
        await asyncio.sleep(0)
        await stopped(bench, worker)
    assert await bench.depth() == 1


async def test_a_stop_does_not_sit_out_its_grace_where_all_that_is_left_waits_for_a_log_that_stays_away(
    bench: Bench, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "AWAY_S", 0.0)
    bench.events.kinds, bench.events.away = {EventKind.SUCCEEDED}, 1_000_000
    job = await bench.submit(1)
    async with bench.worker(handlers.spec(), stop_grace_s=10 * LONG_S) as worker:
        await until(lambda: bench.events.away < 1_000_000)
        await stopped(bench, worker)
    [again] = await bench.queue.consumer(bench.channel()).receive(10, 0.0)
    assert (again.message.job_id, again.attempt) == (job, 1)


async def test_a_stop_lets_a_running_batch_end_though_the_log_is_away(
    bench: Bench, handlers: Handlers, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "AWAY_S", 0.0)
    bench.events.kinds, bench.events.away = {EventKind.STARTED}, 2
    job = await bench.submit(1, gate.input)
    async with bench.worker(handlers.spec()) as worker:
        await gate.reached()
        worker.stop()
        await until(lambda: not bench.events.away)
        gate.open()
        await within(bench.running)
    assert bench.kinds(job)[-1] == ("succeeded", 1)


async def test_a_stop_ends_while_the_log_is_away(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1)
    async with bench.worker(handlers.spec(), stop_grace_s=0.1, close_grace_s=0.1) as worker:
        bench.events.kinds, bench.events.away = {EventKind.SUCCEEDED}, 1_000_000
        await until(lambda: bench.events.away < 1_000_000)
        worker.stop()
        await within(bench.running, 10.0)
    [again] = await bench.queue.consumer(bench.channel()).receive(10, 0.0)
    assert (again.message.job_id, again.attempt) == (job, 1)
