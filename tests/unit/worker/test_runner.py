"""One real child process: what it answers, how it ends, and that nothing it does harms the worker's side."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.worker.conftest import (
    HANDLER,
    LONG_S,
    Gate,
    Handlers,
    StartRunner,
    begun,
    gone,
    item,
    predict,
    until,
    within,
)

from forebay.core.errors import Misconfigured, Unavailable
from forebay.core.event import JobError
from forebay.core.model import ModelSpec
from forebay.core.payload import JSON
from forebay.worker import frames
from forebay.worker.runner import BatchFailed, Runner

SPY = Path(__file__).resolve().parents[2] / "models" / "spy" / "1"
ECHO = {"do": "echo"}


async def failure(batch: asyncio.Task[Any]) -> BatchFailed:
    """How a batch failed that was to give no outcomes."""
    with pytest.raises(BatchFailed) as caught:
        await within(batch)
    return caught.value


# -------------------------------------------------------------------------------------------------------------- answers


async def test_a_batch_is_answered_with_one_outcome_per_input_in_order(runner: Runner) -> None:
    assert await predict(runner, *[ECHO | {"n": n} for n in range(5)]) == [ECHO | {"n": n} for n in range(5)]


async def test_an_input_that_the_model_refuses_fails_alone(runner: Runner) -> None:
    assert await predict(runner, ECHO, {"do": "refuse"}, ECHO) == [ECHO, "refused", ECHO]


async def test_an_input_that_cannot_be_decoded_fails_alone(runner: Runner) -> None:
    rubbish = frames.Item("job", 1, JSON, b"{", b"")
    done = await within(runner.predict([rubbish, item(ECHO)], begun, LONG_S))
    assert [one.error and one.error.code for one in done.outcomes] == ["bad_json", None]


async def test_a_loaded_model_tells_its_facts(handlers: Handlers) -> None:
    runner = Runner(handlers.spec(), decode_threads=1, load_timeout_s=LONG_S)
    try:
        assert (await runner.start())["handler"] == "Model"
    finally:
        await runner.kill()


async def test_a_batch_that_raises_leaves_the_runner_usable(runner: Runner) -> None:
    with pytest.raises(BatchFailed):
        await predict(runner, ECHO, {"do": "fail"})
    assert await predict(runner, ECHO) == [ECHO]


async def test_a_batch_that_raises_says_no_more_than_the_kind_of_error(runner: Runner) -> None:
    raised = await failure(asyncio.create_task(predict(runner, {"do": "fail"})))
    assert (raised.code, raised.lost_runner, raised.begun) == ("model_error", False, True)
    assert "secret" not in raised.message


async def test_a_model_that_raises_leaves_no_input_in_the_log(
    start_runner: StartRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    raised = predict(await start_runner(), {"do": "fail", "private": "a diary"})
    with pytest.raises(BatchFailed):
        await raised
    logged = capfd.readouterr().err
    assert ("model.raised" in logged, "diary" in logged) == (True, False)


async def test_a_model_says_of_a_whole_batch_whether_it_may_be_tried_again(runner: Runner) -> None:
    raised = await failure(asyncio.create_task(predict(runner, {"do": "later_all"})))
    assert (raised.code, raised.retryable, raised.lost_runner) == ("nobody_now", True, False)


async def test_a_second_batch_waits_in_the_runner_for_the_first(runner: Runner, gate: Gate) -> None:
    first = asyncio.create_task(predict(runner, gate.input))
    await gate.reached()
    second = asyncio.create_task(predict(runner, ECHO))
    await until(lambda: runner.outstanding == 2)
    gate.open()
    assert [await within(first), await within(second)] == [[gate.input], [ECHO]]


# -------------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package", "model.py: No module named 'no_such_package'"),
        (
            "class Model:\n    predict = list\n    def load(self):\n        raise OSError('no weights')",
            "OSError: no weights",
        ),
        ("class Model:\n    pass", "has no method predict"),
        ("import os\nos._exit(3)", "exited with status 3 while loading"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL while loading"),
    ],
)
async def test_a_model_that_cannot_be_loaded_says_why(
    source: str, reason: str, handlers: Handlers, start_runner: StartRunner
) -> None:
    with pytest.raises(Misconfigured, match=reason) as caught:
        await start_runner(handlers.spec(source))
    assert caught.value.code == "model_load_failed"


HANGS_WHILE_LOADING = "import threading\nthreading.Event().wait()"


async def test_loading_ends_after_its_time(handlers: Handlers, start_runner: StartRunner) -> None:
    with pytest.raises(Misconfigured, match=r"more than 0\.2 s") as caught:
        await start_runner(handlers.spec(HANGS_WHILE_LOADING), load_timeout_s=0.2)
    assert caught.value.code == "model_load_timeout"


async def test_a_runner_that_took_too_long_to_load_is_gone(handlers: Handlers) -> None:
    runner = Runner(handlers.spec(HANGS_WHILE_LOADING), decode_threads=1, load_timeout_s=0.2)
    with pytest.raises(Misconfigured):
        await runner.start()
    assert gone(runner.pid)


async def test_a_cancelled_start_leaves_no_child(handlers: Handlers) -> None:
    runner = Runner(handlers.spec(HANGS_WHILE_LOADING), decode_threads=1, load_timeout_s=LONG_S)
    starting = asyncio.create_task(runner.start())
    await until(lambda: runner.pid)
    starting.cancel()
    await asyncio.wait({starting})
    assert gone(runner.pid)


async def test_a_model_that_writes_rubbish_while_it_loads_cannot_be_loaded(
    handlers: Handlers, start_runner: StartRunner
) -> None:
    handler = HANDLER.replace(
        "self.folder = folder", 'self.folder = folder; self.say({"hex": "00000003ffffff", "return": True})'
    )
    with pytest.raises(Misconfigured) as caught:
        await start_runner(handlers.spec(handler))
    assert caught.value.code == "model_load_failed"


async def test_a_machine_that_can_start_no_process_makes_the_model_unloadable(
    handlers: Handlers, start_runner: StartRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(Misconfigured) as caught:
        await start_runner(handlers.spec())
    assert caught.value.code == "model_load_failed"


# ---------------------------------------------------------------------------------------------------------------- death


async def test_a_child_killed_mid_batch_fails_every_batch_in_it(start_runner: StartRunner, gate: Gate) -> None:
    runner = await start_runner()
    batches = [asyncio.create_task(predict(runner, one)) for one in (gate.input, ECHO)]
    await gate.reached()
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGKILL)
    assert [(one.lost_runner, one.begun) for one in [await failure(batch) for batch in batches]] == [(True, True)] * 2


@pytest.mark.parametrize(
    ("do", "how"),
    [("die", "the runner was killed by SIGKILL"), ("leave", "the runner exited with status 3")],
)
async def test_a_batch_whose_runner_died_says_how_it_ended(do: str, how: str, start_runner: StartRunner) -> None:
    died = await failure(asyncio.create_task(predict(await start_runner(), {"do": do})))
    assert (died.code, died.message) == ("runner_died", how)


async def test_a_dead_runner_begins_nothing(start_runner: StartRunner) -> None:
    runner = await start_runner()
    await runner.kill()
    refused = await failure(asyncio.create_task(predict(runner, ECHO)))
    assert (refused.lost_runner, refused.begun) == (True, False)


async def test_an_attempt_recorded_after_its_runner_died_is_a_failed_batch(start_runner: StartRunner) -> None:
    runner = await start_runner()
    recorded = asyncio.Event()
    batch = asyncio.create_task(runner.predict([item(ECHO)], lambda: _wait(recorded), LONG_S))
    await until(lambda: runner.outstanding)
    await runner.kill()
    recorded.set()
    died = await failure(batch)
    assert (died.lost_runner, died.begun) == (True, True)


async def test_an_attempt_not_recorded_after_its_runner_died_passes_its_error_on(start_runner: StartRunner) -> None:
    runner = await start_runner()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def away() -> None:
        asked.set()
        await answer.wait()
        raise Unavailable("the queue is away")

    batch = asyncio.create_task(runner.predict([item(ECHO)], away, LONG_S))
    await within(asked.wait())
    await runner.kill()
    answer.set()
    with pytest.raises(Unavailable):
        await within(batch)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


# ---------------------------------------------------------------------------------------------------------- run_timeout


async def test_a_batch_that_hangs_ends_after_its_time_with_its_runner(start_runner: StartRunner) -> None:
    runner = await start_runner()
    hung = await failure(asyncio.create_task(predict(runner, {"do": "hang"}, timeout_s=0.2)))
    assert (hung.code, hung.lost_runner, hung.message) == ("run_timeout", True, "the run took more than 0.2 s")
    assert gone(runner.pid)


async def test_a_second_batch_is_timed_from_when_it_is_first(runner: Runner, gate: Gate) -> None:
    first = asyncio.create_task(predict(runner, gate.input))
    await gate.reached()
    second = asyncio.create_task(predict(runner, ECHO, timeout_s=0.3))
    await asyncio.sleep(0.4)  # what the first takes, and more than the second has
    gate.open()
    assert [await within(first), await within(second)] == [[gate.input], [ECHO]]


async def test_a_second_batch_that_hangs_ends_after_its_own_time(start_runner: StartRunner, gate: Gate) -> None:
    runner = await start_runner()
    first = asyncio.create_task(predict(runner, gate.input))
    await gate.reached()
    second = asyncio.create_task(predict(runner, {"do": "hang"}, timeout_s=0.2))
    await until(lambda: runner.outstanding == 2)
    gate.open()
    await within(first)
    assert (await failure(second)).message == "the run took more than 0.2 s"


async def test_recording_an_attempt_may_take_longer_than_a_run(runner: Runner) -> None:
    done = await within(runner.predict([item(ECHO)], lambda: asyncio.sleep(0.3), timeout_s=0.2))
    assert [one.error for one in done.outcomes] == [None]


async def test_the_time_that_recording_an_attempt_takes_is_not_taken_from_the_run(runner: Runner) -> None:
    slow = item({"do": "take", "seconds": 0.4})
    done = await within(runner.predict([slow], lambda: asyncio.sleep(0.4), timeout_s=0.7))
    assert [one.error for one in done.outcomes] == [None]


async def test_a_second_batch_recorded_late_has_its_whole_time(runner: Runner, gate: Gate) -> None:
    recorded = asyncio.Event()
    first = asyncio.create_task(predict(runner, gate.input))
    await gate.reached()
    late = runner.predict([item({"do": "take", "seconds": 0.4})], lambda: _wait(recorded), timeout_s=0.7)
    second = asyncio.create_task(late)
    gate.open()
    await within(first)
    await asyncio.sleep(0.4)  # what the record takes while this batch is first
    recorded.set()
    assert [one.error for one in (await within(second)).outcomes] == [None]


# ---------------------------------------------------------------------------------------------------------------- begin


async def no_record() -> None:
    raise Unavailable("the queue is away")


async def test_a_batch_whose_attempt_cannot_be_recorded_is_not_run(
    start_runner: StartRunner, handlers: Handlers
) -> None:
    runner = await start_runner()
    with pytest.raises(Unavailable):
        await within(runner.predict([item(ECHO, 7)], no_record, LONG_S))
    await predict(runner, ECHO)
    assert handlers.calls == [[(item(ECHO, 0).job_id, 1)]]


async def test_after_an_attempt_that_was_not_recorded_the_runner_is_free(runner: Runner) -> None:
    with pytest.raises(Unavailable):
        await within(runner.predict([item(ECHO)], no_record, LONG_S))
    assert (runner.outstanding, await predict(runner, ECHO)) == (0, [ECHO])


async def test_nothing_is_predicted_before_its_attempt_is_recorded(
    start_runner: StartRunner, handlers: Handlers
) -> None:
    runner = await start_runner()
    ran_before: list[bool] = []

    async def record() -> None:
        with pytest.raises(TimeoutError):
            await until_called(handlers)
        ran_before.append(bool(handlers.calls))

    await within(runner.predict([item(ECHO)], record, LONG_S))
    assert ran_before == [False]


async def until_called(handlers: Handlers) -> None:
    async with asyncio.timeout(0.2):
        await until(lambda: handlers.calls)


async def test_a_caller_who_goes_away_leaves_the_runner_usable(runner: Runner, gate: Gate) -> None:
    batch = asyncio.create_task(predict(runner, gate.input))
    await gate.reached()
    batch.cancel()
    await asyncio.wait({batch})
    gate.open()
    assert await predict(runner, ECHO) == [ECHO]


# ------------------------------------------------------------------------------------------------------------- nonsense


def forged(*outcomes: frames.Outcome, number: int = 1) -> bytes:
    return frames.encode(frames.Done(number, list(outcomes), 0.0, 0.0))


OUTPUT = frames.Outcome(media_type=JSON, data=b"0")

NONSENSE = {
    "no frame": b"\x00\x00\x00\x03\xff\xff\xff",
    "an empty frame": bytes(4),
    "a frame of the worker's": frames.encode(frames.Go(1)),
    "a greeting": frames.encode(frames.Ready({})),
    "too few outcomes": forged(),
    "too many outcomes": forged(OUTPUT, OUTPUT, OUTPUT),
}


def say(words: bytes, *, go_on: bool = False) -> dict[str, Any]:
    return {"do": "say", "hex": words.hex(), "return": go_on}


@pytest.mark.parametrize("words", NONSENSE.values(), ids=NONSENSE.keys())
async def test_a_model_that_writes_nonsense_to_the_link_loses_its_runner(
    words: bytes, start_runner: StartRunner
) -> None:
    runner = await start_runner()
    lost = await failure(asyncio.create_task(predict(runner, say(words), ECHO)))
    assert (lost.code, lost.lost_runner) == ("runner_died", True)
    assert gone(runner.pid)


async def test_a_frame_longer_than_what_follows_ends_with_the_run_timeout(start_runner: StartRunner) -> None:
    runner = await start_runner()
    endless = await failure(asyncio.create_task(predict(runner, say(b"\xff" * 100, go_on=True), timeout_s=0.3)))
    assert endless.code == "run_timeout"


async def test_an_answer_to_a_batch_that_was_never_given_is_passed_over(runner: Runner) -> None:
    words = say(forged(OUTPUT, number=99), go_on=True)
    assert await predict(runner, words) == [words]


async def test_an_answer_given_twice_counts_once(start_runner: StartRunner) -> None:
    runner = await start_runner()
    error = frames.encode(frames.Raised(1, JobError(code="forged", message="")))
    assert await predict(runner, say(forged(OUTPUT) + error, go_on=True)) == [0]
    assert await predict(runner, ECHO) == [ECHO]


# ---------------------------------------------------------------------------------------------------------------- close


async def test_close_lets_a_running_batch_end_and_answer(start_runner: StartRunner, gate: Gate) -> None:
    runner = await start_runner()
    batch = asyncio.create_task(predict(runner, gate.input))
    await gate.reached()
    closing = asyncio.create_task(runner.close(LONG_S))
    await asyncio.sleep(0)  # one turn of the loop: a close that gives no grace has killed the child by now
    gate.open()
    assert await within(batch) == [gate.input]
    await within(closing)


async def test_close_lets_a_model_clean_up(start_runner: StartRunner, handlers: Handlers) -> None:
    runner = await start_runner()
    await within(runner.close(LONG_S))
    assert handlers.closed


async def test_a_closed_runner_ends_by_itself(start_runner: StartRunner) -> None:
    runner = await start_runner()
    await within(runner.close(LONG_S))
    assert runner.death.message == "the runner exited with status 0"


async def test_close_kills_a_runner_that_goes_on_after_the_grace(start_runner: StartRunner) -> None:
    runner = await start_runner()
    batch = asyncio.create_task(predict(runner, {"do": "hang"}))
    await until(lambda: runner.outstanding)
    await within(runner.close(0.1))
    assert (await failure(batch)).lost_runner
    assert gone(runner.pid)


async def test_an_attempt_recorded_after_close_began_is_a_failed_batch(start_runner: StartRunner) -> None:
    runner = await start_runner()
    recorded = asyncio.Event()
    batch = asyncio.create_task(runner.predict([item(ECHO)], lambda: _wait(recorded), LONG_S))
    await until(lambda: runner.outstanding)
    closing = asyncio.create_task(runner.close(LONG_S))
    await asyncio.sleep(0)
    recorded.set()
    assert (await failure(batch)).lost_runner
    await within(closing)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_runner_can_be_killed_again(times: int, start_runner: StartRunner) -> None:
    runner = await start_runner()
    for _ in range(times):
        await within(runner.kill())
    assert gone(runner.pid)


# ------------------------------------------------------------------------------------------------------ what it can see


@pytest.fixture(scope="module")
async def spied() -> dict[str, Any]:
    """What a model sees of the service, whose environment holds settings and credentials."""
    runner = Runner(
        ModelSpec(name="spy", version="1", task="json", runtime="python", folder=str(SPY)),
        decode_threads=1,
        load_timeout_s=LONG_S,
    )
    with pytest.MonkeyPatch.context() as environment:
        for name in ("FOREBAY_SECRETS", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "OMP_NUM_THREADS"):
            environment.setenv(name, "1")
        await runner.start()
    seen: dict[str, Any] = (await predict(runner, {}))[0]
    await runner.kill()
    return seen


async def test_a_model_sees_no_setting_and_no_credential_of_ours(spied: dict[str, Any]) -> None:
    assert not {"FOREBAY_SECRETS", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"} & spied["environ"].keys()


async def test_a_model_sees_what_its_framework_is_tuned_with(spied: dict[str, Any]) -> None:
    assert spied["environ"]["OMP_NUM_THREADS"] == "1"


async def test_a_model_sees_no_open_connection_but_its_link(spied: dict[str, Any]) -> None:
    assert len([name for name in spied["files"] if name.startswith("socket:")]) == 1
