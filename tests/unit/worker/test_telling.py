"""What handlers say while they run is put together, in order, and leaves the runner before its batch is answered."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from forebay.core.errors import ModelFailed
from forebay.ports.runtime import ItemContext
from forebay.worker import frames
from forebay.worker.telling import Teller


class Ear:
    """Keeps what was sent; while it is `busy`, whoever sends waits."""

    def __init__(self) -> None:
        self.frames: list[frames.Said] = []
        self.free = threading.Event()
        self.free.set()
        self.teller = Teller(self.send)
        self.teller.open(7)

    def send(self, frame: frames.Said) -> None:
        assert self.free.wait(30)
        self.frames.append(frame)

    def context(self, place: int = 0) -> ItemContext:
        return ItemContext(
            job_id="j",
            attempt=1,
            parameters={},
            canceled=threading.Event(),
            listener=self.teller.voice(place),
        )

    def chunks(self, place: int = 0) -> list[Any]:
        return [json.loads(chunk) for frame in self.frames if frame.place == place for chunk in frame.chunks]


@pytest.fixture
def ear() -> Ear:
    return Ear()


def test_a_handler_that_says_nothing_costs_no_thread(ear: Ear) -> None:
    before = threading.active_count()
    ear.context()
    ear.teller.close()
    assert (threading.active_count(), ear.frames) == (before, [])


def test_all_chunks_arrive_in_order_in_few_frames(ear: Ear) -> None:
    context = ear.context()
    for n in range(20_000):
        context.emit(n)
    ear.teller.close()
    assert ear.chunks() == list(range(20_000))
    assert len(ear.frames) < 2_000


def test_whoever_speaks_waits_for_nobody(ear: Ear) -> None:
    context = ear.context()
    ear.free.clear()
    for n in range(1_000):
        context.emit(n)
        context.progress(n / 1_000)
    ear.free.set()
    ear.teller.close()
    assert ear.chunks() == list(range(1_000))
    assert [frame.progress for frame in ear.frames][-1] == 0.999


def test_of_many_words_on_progress_the_last_is_sent(ear: Ear) -> None:
    ear.free.clear()
    context = ear.context()
    context.progress(0.0)  # may be on its way already
    for n in range(1, 1_001):
        context.progress(n / 1_000)
    ear.free.set()
    ear.teller.close()
    assert len(ear.frames) <= 3
    assert ear.frames[-1] == frames.Said(7, 0, 1.0, [])


def test_inputs_of_a_batch_are_kept_apart(ear: Ear) -> None:
    first, second = ear.context(0), ear.context(1)
    first.emit("a")
    second.emit("b")
    second.progress(0.5)
    first.emit("c")
    ear.teller.close()
    assert (ear.chunks(0), ear.chunks(1)) == (["a", "c"], ["b"])
    assert [frame.place for frame in ear.frames if frame.progress is not None] == [1]


def test_what_threads_of_the_handler_say_is_all_there(ear: Ear) -> None:
    context = ear.context()

    def speak(who: int) -> None:
        for n in range(500):
            context.emit([who, n])

    threads = [threading.Thread(target=speak, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ear.teller.close()
    for who in range(4):
        assert [n for speaker, n in ear.chunks() if speaker == who] == list(range(500))


def test_nothing_can_be_said_of_an_input_that_was_answered(ear: Ear) -> None:
    context = ear.context()
    ear.teller.close()
    with pytest.raises(RuntimeError, match="has been answered"):
        context.emit("late")
    with pytest.raises(RuntimeError, match="has been answered"):
        context.progress(1)
    ear.teller.open(8)
    with pytest.raises(RuntimeError, match="has been answered"):
        context.emit("into the next batch")
    ear.teller.close()
    assert ear.frames == []


class Array:
    """As numpy's."""

    def tolist(self) -> list[float]:
        return [0.5]


@pytest.mark.parametrize(
    ("chunk", "shown"),
    [
        ("naïve\n✓", "naïve\n✓"),
        (b"\x00\xff", {"base64": "AP8="}),
        (bytearray(b"ab"), {"base64": "YWI="}),
        (None, None),
        ({"a": [1, 2.5, True]}, {"a": [1, 2.5, True]}),
        (Array(), [0.5]),
    ],
)
def test_a_chunk_is_a_string_bytes_or_any_json_value(ear: Ear, chunk: Any, shown: Any) -> None:
    ear.context().emit(chunk)
    ear.teller.close()
    assert ear.chunks() == [shown]
    assert all(b"\n" not in chunk for frame in ear.frames for chunk in frame.chunks)


@pytest.mark.parametrize("chunk", [object(), float("nan"), {1, 2}, "\ud800"])
def test_what_is_not_json_is_refused(ear: Ear, chunk: Any) -> None:
    with pytest.raises(ModelFailed) as refused:
        ear.context().emit(chunk)
    assert refused.value.code == "bad_output"


def test_a_chunk_has_a_largest_size_and_so_have_all_of_an_attempt(ear: Ear) -> None:
    context = ear.context()
    with pytest.raises(ModelFailed) as too_large:
        context.emit("x" * frames.CHUNK_MAX_BYTES)
    assert too_large.value.code == "chunk_too_large"
    chunk = "x" * (frames.CHUNK_MAX_BYTES - frames.CHUNK_COSTS_BYTES - 2)
    for _ in range(frames.EMITTED_MAX_BYTES // frames.CHUNK_MAX_BYTES):
        context.emit(chunk)
    with pytest.raises(ModelFailed) as too_much:
        context.emit("x")
    assert too_much.value.code == "too_much_emitted"
    ear.context(1).emit("x")
    ear.teller.close()
    assert len(ear.chunks(0)) == frames.EMITTED_MAX_BYTES // frames.CHUNK_MAX_BYTES
    assert ear.chunks(1) == ["x"]


@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan"), float("inf"), "most"])
def test_progress_is_a_number_from_0_to_1(ear: Ear, fraction: Any) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1|could not convert"):
        ear.context().progress(fraction)


def test_a_handler_that_is_called_without_a_runner_may_speak_too() -> None:
    context = ItemContext(job_id="j", attempt=1, parameters={}, canceled=threading.Event())
    context.emit("a")
    context.progress(0.5)
