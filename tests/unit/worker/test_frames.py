"""What a worker and its runner say to each other arrives as it was said, and rubbish is known for what it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.batching import BatchPolicy
from forebay.core.event import JobError
from forebay.core.model import ModelSpec
from forebay.worker import frames

texts = st.text(max_size=20)
counts = st.integers(0, 2**31)
seconds = st.floats(0, 1e6)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
objects = st.dictionaries(texts, values, max_size=3)
specs = st.builds(
    ModelSpec,
    name=texts,
    version=texts,
    task=texts,
    runtime=texts,
    folder=texts,
    batching=st.builds(BatchPolicy, max_batch_size=counts, max_queue_delay_s=seconds),
    labels=st.lists(texts, max_size=3).map(tuple),
    options=objects,
    task_options=objects,
)
items = st.builds(
    frames.Item,
    job_id=texts,
    attempt=counts,
    media_type=texts,
    data=st.binary(max_size=50),
    parameters=st.binary(max_size=50),
)
errors = st.builds(JobError, code=texts, message=texts, retryable=st.booleans())
outcomes = st.builds(frames.Outcome, media_type=texts, data=st.binary(max_size=50), error=st.none() | errors)
to_runner = (
    st.builds(frames.Load, spec=specs, decode_threads=counts)
    | st.builds(frames.Batch, number=counts, items=st.lists(items, max_size=3))
    | st.builds(frames.Go, number=counts, go=st.booleans())
)
from_runner = (
    st.builds(frames.Ready, facts=objects)
    | st.builds(frames.LoadFailed, reason=texts)
    | st.builds(
        frames.Said,
        number=counts,
        place=counts,
        progress=st.none() | st.floats(0, 1),
        chunks=st.lists(st.binary(max_size=20), max_size=3),
    )
    | st.builds(
        frames.Done, number=counts, outcomes=st.lists(outcomes, max_size=3), decode_s=seconds, predict_s=seconds
    )
    | st.builds(frames.Raised, number=counts, error=errors, last=st.booleans())
)


@given(to_runner)
def test_what_a_worker_says_arrives_as_it_was_said(frame: frames.ToRunner) -> None:
    assert frames.decode_to_runner(frames.encode(frame)[frames.LENGTH_BYTES :]) == frame


@given(from_runner)
def test_what_a_runner_says_arrives_as_it_was_said(frame: frames.FromRunner) -> None:
    assert frames.decode_from_runner(frames.encode(frame)[frames.LENGTH_BYTES :]) == frame


@given(to_runner | from_runner)
def test_a_frame_begins_with_the_length_of_its_body(frame: Any) -> None:
    encoded = frames.encode(frame)
    assert int.from_bytes(encoded[: frames.LENGTH_BYTES], "big") == len(encoded) - frames.LENGTH_BYTES


@given(st.binary(max_size=200))
def test_rubbish_from_a_runner_is_a_frame_or_a_value_error(rubbish: bytes) -> None:
    try:
        frame = frames.decode_from_runner(rubbish)
    except ValueError:
        return
    assert isinstance(frame, frames.FromRunner)


@given(to_runner)
def test_a_runner_cannot_say_what_only_a_worker_says(frame: frames.ToRunner) -> None:
    with pytest.raises(ValueError, match="Invalid value"):
        frames.decode_from_runner(frames.encode(frame)[frames.LENGTH_BYTES :])


@given(from_runner, st.data())
def test_a_frame_cut_short_is_a_value_error(frame: frames.FromRunner, data: st.DataObject) -> None:
    body = frames.encode(frame)[frames.LENGTH_BYTES :]
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(ValueError, match="truncated"):
        frames.decode_from_runner(body[:cut])
