"""A job that was canceled does not run, or no longer; whoever shares a batch or a runner with it does not suffer."""

from __future__ import annotations

from tests.unit.worker.conftest import Bench, Gate, Handlers, gone, until

from forebay.core.batching import BatchPolicy
from forebay.core.model import ModelLimits
from forebay.core.payload import JSON, BlobRef, Payload
from forebay.testing.samples import job_id

ONE = BatchPolicy(max_batch_size=1)
IMPATIENT = ModelLimits(cancel_grace_s=0.0)
PATIENT = ModelLimits(cancel_grace_s=3600.0)


async def test_one_that_was_canceled_before_it_was_received_never_runs(bench: Bench, handlers: Handlers) -> None:
    canceled = await bench.submit(1)
    await bench.cancel(canceled)
    wanted = await bench.submit(2)
    async with bench.worker(handlers.spec()):
        await bench.final(wanted)
        await until_settled(bench)
    assert handlers.calls == [[(wanted, 1)]]
    assert bench.kinds(canceled) == [("canceled", 0)]


async def test_one_that_waits_in_the_worker_never_runs(bench: Bench, handlers: Handlers, gate: Gate) -> None:
    running = await bench.submit(1, gate.input)
    async with bench.worker(handlers.spec(batching=ONE)):
        await gate.reached()
        waiting = [await bench.submit(number) for number in (2, 3)]
        await until(lambda: bench.intake.in_hand == 3)
        await bench.cancel(waiting[1])
        gate.open()
        await bench.finals([running, waiting[0]])
        await until_settled(bench)
    assert [call for call in handlers.calls if (waiting[1], 1) in call] == []


async def test_a_model_that_looks_at_its_token_ends_and_keeps_its_runner(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "heed"})
    async with bench.worker(handlers.spec(limits=PATIENT)):
        await until(lambda: (handlers.folder / "heeding").exists())
        pids = bench.runners.pids
        await bench.cancel(job)
        await until_settled(bench)
        assert (handlers.folder / "heeded").exists()
        assert bench.runners.pids == pids
    assert bench.kinds(job) == [("started", 1), ("canceled", 0)]


async def test_a_model_that_does_not_heed_it_loses_its_runner_after_the_grace(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "hang"})
    async with bench.worker(handlers.spec(limits=IMPATIENT)):
        await until(lambda: bench.kinds(job))
        [pid] = bench.runners.pids
        await bench.cancel(job)
        await until(lambda: gone(pid))
        await until_settled(bench)
        after = await bench.submit(2)
        assert (await bench.final(after)).kind == "succeeded"
    assert bench.kinds(job) == [("started", 1), ("canceled", 0)]


async def test_a_neighbour_in_the_batch_keeps_the_runner_and_gets_its_output(
    bench: Bench, handlers: Handlers, gate: Gate
) -> None:
    jobs = [await bench.submit(1, gate.input), await bench.submit(2)]
    async with bench.worker(handlers.spec(limits=IMPATIENT)):
        await gate.reached()
        [pid] = bench.runners.pids
        await bench.cancel(jobs[0])
        bystander = await bench.submit(3)  # what the grace would kill it would kill before this is answered
        await until(lambda: bench.intake.in_hand == 3)
        gate.open()
        assert (await bench.final(jobs[1])).kind == "succeeded"
        await bench.final(bystander)
        await until_settled(bench)
        assert bench.runners.pids == [pid]
    assert bench.kinds(jobs[0]) == [("started", 1), ("canceled", 0)]
    assert [call for call in handlers.calls if (jobs[1], 1) in call] == [[(job, 1) for job in jobs]]


async def test_a_batch_behind_it_in_the_runner_runs_once_as_another_attempt(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "hang"})
    async with bench.worker(handlers.spec(limits=IMPATIENT, batching=ONE)):
        await until(lambda: handlers.calls)
        behind = await bench.submit(2)
        await until(lambda: bench.kinds(behind))  # its attempt is on record, and it waits in the same runner
        await bench.cancel(job)
        final = await bench.final(behind)
        await until_settled(bench)
    assert (final.kind, final.attempt) == ("succeeded", 2)
    assert handlers.calls == [[(job, 1)], [(behind, 2)]]


async def test_a_batch_behind_it_was_started_and_cannot_expire_any_more(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "hang"})
    async with bench.worker(handlers.spec(limits=IMPATIENT, batching=ONE)):
        await until(lambda: bench.kinds(job))
        behind = await bench.submit(2, start_within_s=5.0)
        await until(lambda: bench.kinds(behind))
        bench.clock.advance(5.0)
        await bench.cancel(job)
        await bench.final(behind)
        await until_settled(bench)
    assert bench.kinds(behind) == [("started", 1), ("started", 2), ("succeeded", 2)]


async def test_one_that_is_canceled_while_its_input_is_loaded_is_told(bench: Bench, handlers: Handlers) -> None:
    ref = await bench.blobs.put("default", job_id(1), b'{"do": "hang"}')
    get = bench.blobs.get

    async def canceled_meanwhile(ref: BlobRef) -> bytes:
        await bench.cancel(job)
        return await get(ref)

    bench.blobs.get = canceled_meanwhile  # type: ignore[method-assign]  # another's cancel, at that very moment
    job = await bench.submit(1, input=Payload(media_type=JSON, blob=ref))
    async with bench.worker(handlers.spec(limits=IMPATIENT)):
        await until_settled(bench)
    assert [kind for kind, _ in bench.kinds(job)] in (["canceled", "started"], ["canceled"])


async def test_what_a_neighbour_says_of_its_batch_counts_the_canceled(
    bench: Bench, handlers: Handlers, gate: Gate
) -> None:
    jobs = [await bench.submit(1, gate.input), await bench.submit(2)]
    async with bench.worker(handlers.spec(limits=PATIENT)):
        await gate.reached()
        await bench.cancel(jobs[0])
        gate.open()
        final = await bench.final(jobs[1])
    assert final.metrics is not None
    assert final.metrics.batch_size == 2


async def until_settled(bench: Bench) -> None:
    """Nothing is left in the queue, not even in hand."""
    await until(lambda: all(waiting.unacknowledged == 0 for waiting in bench.queue._channels.values()))
