"""What handlers say while they run comes into the log beside what matters, in order, and before the outcome."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.worker.conftest import AwayLog, Bench, Gate, Handlers, StartRunner, begun, item, until, within

from forebay.core.batching import BatchPolicy
from forebay.core.errors import PayloadTooLarge, Unavailable
from forebay.core.event import EventKind, JobEvent
from forebay.core.fact import Event, JobFact
from forebay.core.job import Job, apply
from forebay.core.model import ModelLimits
from forebay.core.wire import decode, encode_event
from forebay.worker import frames, interim
from forebay.worker.runner import BatchFailed

HELD = {"do": "talk", "then": "gate"}
ONE = BatchPolicy(max_batch_size=1)
TOGETHER = BatchPolicy(max_batch_size=8, max_queue_delay_s=0.2)


def shown(bench: Bench, job: str) -> dict[int, list[Any]]:
    """By attempt the chunks that a reader of the log has: each word counts once, and none that comes after a gap."""
    state: Job | None = None
    found: dict[int, list[Any]] = {}
    for message in bench.shared.messages:
        if message.job_id == job:
            before, fact = state, decode(message)
            assert isinstance(fact, JobFact)
            state = apply(before, fact)
            if state is not before and isinstance(fact, JobEvent) and fact.kind is EventKind.OUTPUT:
                assert fact.output is not None
                found.setdefault(fact.attempt, []).extend(json.loads(fact.output.data or b""))
    return found


def words(bench: Bench, job: str) -> list[tuple[int, float | None]]:
    return [(fact.sequence, fact.progress) for fact in bench.facts(job) if fact.kind is EventKind.PROGRESS]


async def test_it_is_told_while_the_attempt_runs_and_before_its_outcome(
    bench: Bench, handlers: Handlers, gate: Gate
) -> None:
    job = await bench.submit(1, gate.input | HELD | {"chunks": ["a", {"b": 1}, None], "progress": [0.1, 0.4]})
    async with bench.worker(handlers.spec()):
        await gate.reached()
        await until(lambda: shown(bench, job) and words(bench, job))
        assert "succeeded" not in [kind for kind, _ in bench.kinds(job)]
        gate.open()
        await bench.final(job)
    kinds = bench.kinds(job)
    assert kinds[0] == ("started", 1)
    assert kinds[-1] == ("succeeded", 1)
    assert shown(bench, job) == {1: ["a", {"b": 1}, None]}
    assert words(bench, job)[-1][1] == 0.4


async def test_all_that_was_emitted_is_there_before_the_outcome_however_quick_it_came(
    bench: Bench, handlers: Handlers
) -> None:
    chunks = ["x" * 100_000] * 7 + list(range(5_000))
    jobs = [await bench.submit(n, {"do": "talk", "chunks": [n, *chunks], "progress": [0.5]}) for n in range(4)]
    async with bench.worker(handlers.spec(batching=TOGETHER)):
        await bench.finals(jobs)
    for n, job in enumerate(jobs):
        assert shown(bench, job) == {1: [n, *chunks]}
        assert bench.kinds(job)[-1] == ("succeeded", 1)
        assert len(bench.kinds(job)) < 30


@pytest.mark.parametrize(("then", "code"), [("fail", "model_error"), ("refuse", "refused")])
async def test_what_a_failing_attempt_emitted_is_there_before_it_has_failed(
    bench: Bench, handlers: Handlers, then: str, code: str
) -> None:
    job = await bench.submit(1, {"do": "talk", "chunks": [1, 2], "then": then})
    async with bench.worker(handlers.spec()):
        final = await bench.final(job)
    assert final.error is not None
    assert final.error.code == code
    assert shown(bench, job) == {1: [1, 2]}


async def test_another_attempt_is_numbered_anew(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "talk", "chunks": [1, 2], "first": "die"})
    async with bench.worker(handlers.spec()):
        await bench.final(job)
    assert shown(bench, job)[2] == [1, 2]
    kinds = bench.kinds(job)
    assert kinds.index(("started", 2)) < kinds.index(("output", 2))


async def test_a_handler_hears_that_it_said_too_much_and_fails_alone(bench: Bench, handlers: Handlers) -> None:
    jobs = [
        await bench.submit(1, {"do": "talk", "chunks": ["x" * 300_000]}),
        await bench.submit(2, {"do": "talk", "chunks": [1]}),
        await bench.submit(3, {"do": "talk", "progress": [1.5]}),
    ]
    async with bench.worker(handlers.spec(batching=TOGETHER)):
        finals = await bench.finals(jobs)
    assert [final.error and final.error.code for final in finals] == ["chunk_too_large", None, "model_error"]


async def test_progress_is_told_now_and_then_and_the_newest_word_is_never_the_one_left_out(
    bench: Bench, handlers: Handlers, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interim, "TELL_EVERY_S", 0.001)
    monkeypatch.setattr(interim, "PROGRESS_EVERY_S", 0.05)
    job = await bench.submit(1, gate.input | HELD | {"progress": [n / 10_000 for n in range(10_001)]})
    async with bench.worker(handlers.spec()):
        await gate.reached()
        await until(lambda: words(bench, job) and words(bench, job)[-1][1] == 1.0)
        gate.open()
        await bench.final(job)
    told = words(bench, job)
    assert [number for number, _ in told] == list(range(1, len(told) + 1))
    assert len(told) < 1_000


async def test_jobs_take_turns_where_more_speak_than_are_told_of_at_once(
    bench: Bench, handlers: Handlers, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interim, "TELL_EVERY_S", 0.001)
    monkeypatch.setattr(interim, "MOST_JOBS", 1)
    speaking = [await bench.submit(n, {"do": "talk", "chunks": [n], "progress": [0.5]}) for n in range(3)]
    await bench.submit(9, gate.input)
    async with bench.worker(handlers.spec(batching=TOGETHER)):
        await gate.reached()
        await until(lambda: all(shown(bench, job) and words(bench, job) for job in speaking))
        gate.open()
        await bench.finals(speaking)
    assert [shown(bench, job) for job in speaking] == [{1: [n]} for n in range(3)]


class Doubtful(AwayLog):
    """Of the next `away` publishings that hold chunks nobody learns whether they were written; half of them were."""

    async def publish(self, events: Sequence[Event]) -> None:
        if self.away and any(event.kind is EventKind.OUTPUT for event in events):
            self.away -= 1
            if self.away % 2:
                await super(AwayLog, self).publish(events)
            raise Unavailable("who knows", retry_after_s=0.001)
        await super().publish(events)


async def test_a_log_that_is_away_costs_no_chunk_and_shows_none_twice(
    bench: Bench, handlers: Handlers, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.worker.outcomes.BACKEND_RETRY_S", 0.001)
    bench.events = Doubtful(bench.shared)
    bench.events.away = 5
    job = await bench.submit(1, gate.input | HELD | {"chunks": list(range(100))})
    behind = await bench.submit(2, {"do": "talk", "chunks": list(range(10))})
    async with bench.worker(handlers.spec(batching=ONE)):
        await gate.reached()
        await until(lambda: len(shown(bench, job).get(1, [])) == 100)
        bench.events.away = 5
        gate.open()
        await bench.finals([job, behind])
    assert shown(bench, job) == {1: list(range(100))}
    assert shown(bench, behind) == {1: list(range(10))}


async def test_chunks_that_the_log_never_takes_hold_nobody_up(bench: Bench, handlers: Handlers) -> None:
    class Small(AwayLog):
        async def publish(self, events: Sequence[Event]) -> None:
            if any(encode_event(event).value[1_000:] for event in events):
                raise PayloadTooLarge("too large", limit_bytes=1_000)
            await super().publish(events)

    bench.events = Small(bench.shared)
    jobs = [
        await bench.submit(1, {"do": "talk", "chunks": ["x" * 2_000], "then": "refuse"}),
        await bench.submit(2, {"do": "talk", "chunks": ["small"]}),
    ]
    async with bench.worker(handlers.spec(batching=TOGETHER)):
        finals = await bench.finals(jobs)
    assert [final.kind for final in finals] == ["failed", "succeeded"]
    assert shown(bench, jobs[1]) == {1: ["small"]}
    assert shown(bench, jobs[0]) == {}


async def test_nobody_is_told_what_is_said_of_a_canceled_job(bench: Bench, handlers: Handlers) -> None:
    job = await bench.submit(1, {"do": "talk", "then": "heed_and_talk"})
    async with bench.worker(handlers.spec(limits=ModelLimits(cancel_grace_s=3600.0))):
        await until(lambda: (handlers.folder / "heeding").exists())
        await bench.cancel(job)
        await until(lambda: all(waiting.unacknowledged == 0 for waiting in bench.queue._channels.values()))
    assert bench.kinds(job) == [("started", 1), ("canceled", 0)]


# --------------------------------------------------------------------------------------- a model that speaks for itself


@pytest.mark.parametrize(
    "nonsense",
    [
        frames.Said(1, 1, None, []),
        frames.Said(1, -1, 0.5, []),
        frames.Said(1, 0, None, [b""] * (frames.EMITTED_MAX_BYTES // frames.CHUNK_COSTS_BYTES + 1)),
    ],
    ids=["no such input", "none at all", "too much"],
)
async def test_a_word_that_no_runner_of_ours_would_say_ends_the_runner(
    start_runner: StartRunner, nonsense: frames.Said
) -> None:
    runner = await start_runner()
    talk = interim.Talk(lambda said: None)
    nobody: Any = None  # whose job it is does not matter
    value = {"do": "say", "hex": frames.encode(nonsense).hex(), "return": False}
    with pytest.raises(BatchFailed) as failed:
        await within(runner.predict([item(value)], begun, 30.0, lambda said: talk.hear([nobody], said)))
    assert failed.value.lost_runner
